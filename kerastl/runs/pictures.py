"""Writes explanations and heat maps as pictures."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kerastl._atomic import atomic_path
from kerastl._checks import check_choice
from kerastl.data.pixels import to_show
from kerastl.data.split import Split
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import BadFile
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.heads import task_of
from kerastl.results.class_map import ClassMapper
from kerastl.results.explain import COLORS, METHODS, explain, overlay
from kerastl.results.run_files import Json, RunFiles, read_labelled_model
from kerastl.runs.telling import silent

_INCHES = 8.0  # width of a figure


class Painter(NamedTuple):
    """A model, images, and where the pictures go."""

    model: keras.Model
    class_names: list[str]
    split: Split
    skipped: list[BadFile]
    folder: Path

    def picture(self, place: int, figure: Figure) -> str:
        """Write the figure of the image at a place; return its path."""
        assert self.split.paths is not None  # noqa: S101  # the images are files
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{place:04}-{Path(self.split.paths[place]).stem}.png"
        with atomic_path(file) as partial:
            figure.savefig(partial, format="png")
        return str(file)

    def class_id(self, class_name: str | None) -> int | None:
        """Return the number of a class; raise an `ArgumentError` if the model knows none such."""
        if class_name is None:
            return None
        return self.class_names.index(check_choice("--class", class_name, self.class_names))


def read_painter(
    run: Path,
    images: Sequence[Path],
    output: Path | None,
    name: str,
    on_bad: str = "error",
    tell: Callable[[str], None] = silent,
) -> Painter:
    """Read a model and images for pictures in `output`, or in a folder `name` of the run."""
    model, names = read_labelled_model(run)
    rules = RunFiles(run).rules(model)
    split, skipped = load_unlabelled([str(image) for image in images], on_bad=on_bad, rules=rules)
    for path, reason in skipped:
        tell(f"Left out {path}: {reason}")
    folder = output or (run if run.is_dir() else run.parent) / name
    return Painter(model, names, split, skipped, folder)


def side_by_side(
    pixels: np.ndarray,
    heat: np.ndarray,
    caption: str,
    legend: str,
    box: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Return a figure of an image next to its heat map.

    Args:
        pixels: 0-255 `(height, width, 3)`.
        heat: 0 to 1 `(height, width)`.
        caption: above both.
        legend: what the colours mean.
        box: top, left, bottom, right of what is framed, in pixels.
    """
    height, width = heat.shape
    # A dot for each pixel of the image, whose panel is less than half as wide as the figure.
    dots = min(max(100, 2.4 * max(height, width) / _INCHES), 400)
    figure = Figure((_INCHES, 0.45 * _INCHES * height / width + 0.8), dots, layout="constrained")
    lines = textwrap.wrap(caption, 90)  # what `wrap=True` breaks is parsed as a formula
    figure.suptitle("\n".join(lines), parse_math=False, fontsize="medium")
    original, explained = figure.subplots(1, 2)
    original.imshow(to_show(pixels).astype("uint8"))
    explained.imshow(overlay(pixels[None], heat[None])[0])
    for axes in (original, explained):
        axes.axis("off")
    if box is not None:
        top, left, bottom, right = box
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
        explained.add_patch(Rectangle(corner, *size, fill=False, color="white", linewidth=3))
        explained.add_patch(Rectangle(corner, *size, fill=False, color="black", linestyle="--"))
    colors = figure.colorbar(ScalarMappable(cmap=COLORS), ax=explained, shrink=0.9)
    colors.ax.yaxis.label.set_parse_math(False)  # a name may have a dollar sign
    colors.set_label(legend)
    return figure


def paint_explanations(
    painter: Painter, class_name: str | None = None, method: str = "auto", stage: str | None = None
) -> list[Json]:
    """Paint over each image what speaks for a class, or for its answer; return a dict each.

    A dict has `path`, `label` and `probability` (of a regression `target` and `value`), `method`,
    `stage` and `overlay`, the path of the picture.
    """
    check_choice("--method", method, METHODS)
    wanted = painter.class_id(class_name)
    at = int(stage) if stage is not None and stage.isdecimal() else stage
    rows: list[Json] = []
    paths: list[str] = painter.split.paths or []
    _, label, number = task_of(painter.model).told_columns
    for pixels in painter.split.images(image_size_of(painter.model)).as_numpy_iterator():
        asked = None if wanted is None else np.full(len(pixels), wanted)
        found = explain(painter.model, pixels, class_ids=asked, method=method, stage=at)
        how = found.method.replace("_", "-") + (f" at {found.stage}" if found.stage else "")
        for place, heat in enumerate(found.heat):
            class_id = int(found.class_ids[place])
            name, value = painter.class_names[class_id], found.probabilities[place, class_id]
            caption = f"{Path(paths[len(rows)]).name}: {name} {value:.3f} ({how})"
            legend = f"support for {name}, relative to the maximum"
            figure = side_by_side(pixels[place], heat, caption, legend)
            rows.append(
                {
                    "path": paths[len(rows)],
                    label: name,
                    number: float(value),
                    "method": found.method,
                    "stage": found.stage,
                    "overlay": painter.picture(len(rows), figure),
                }
            )
    return rows


def paint_heatmaps(
    painter: Painter, class_name: str | None = None, size: int | None = None
) -> Json:
    """Slide a model over larger images, and paint where it sees a class, or the surest one.

    Returns:
        The `window` and `stride` in pixels, and `heatmaps`, a dict an image.
    """
    wanted, mapper = painter.class_id(class_name), ClassMapper(painter.model)
    rows: list[Json] = []
    for place, path in enumerate(painter.split.paths or []):
        one = painter.split.subset([place])
        height, width = (int(side) for side in one.source.sizes()[0])
        pixels = next(iter(one.images((height, width)).as_numpy_iterator()))[0]
        seen = mapper(pixels, size)
        class_id = int(seen.probabilities.max((0, 1)).argmax()) if wanted is None else wanted
        cell = seen.strongest(class_id)
        name, probability = painter.class_names[class_id], seen.probabilities[(*cell, class_id)]
        caption = f"{Path(path).name}: {name} {probability:.3f} in the marked window"
        legend, heat = f"probability of {name}", seen.heat(class_id)
        figure = side_by_side(pixels, heat, caption, legend, seen.box(*cell))
        rows.append(
            {
                "path": path,
                "label": name,
                "probability": float(probability),
                "box": [round(side, 1) for side in seen.box(*cell)],
                "cells": list(seen.probabilities.shape[:2]),
                "looked_at": list(seen.looked_at),
                "overlay": painter.picture(place, figure),
            }
        )
    return {"window": mapper.window, "stride": mapper.stride, "heatmaps": rows}
