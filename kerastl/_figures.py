"""Figures for notebooks: plots, and images in a grid."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLUMNS = 4
_INCHES = 2.4  # the side of an image


class NotebookFigure(Figure):
    """A figure without a window, which a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def image_grid(images: Any, titles: Sequence[str]) -> NotebookFigure:
    """Return a figure of images `(num_images, height, width, 3)` of 0-255, a title each."""
    rows = -(-len(titles) // COLUMNS)
    figure = NotebookFigure((COLUMNS * _INCHES, rows * _INCHES * 1.2), layout="constrained")
    places = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    for axes, image, title in zip(places, images, titles, strict=False):
        axes.imshow(np.clip(image, 0, 255).astype("uint8"))
        # Names come from the user's table, and a dollar sign would begin a formula.
        axes.set_title(title.replace("$", r"\$"), fontsize="small", wrap=True)
    return figure
