"""Boxes drawn into pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_LEAST_SIDE = 224  # of a picture, so that names can be read
_TRUE, _ANSWERED = (255, 255, 255), (255, 140, 0)


def draw_boxes(
    pixels: np.ndarray,
    names: Sequence[str],
    labels: np.ndarray,
    answers: np.ndarray | None = None,
) -> np.ndarray:
    """Return a picture with true boxes in white, and answered ones in orange with their scores.

    Args:
        pixels: uint8 `(height, width, 3)`.
        names: of the classes.
        labels: `(most, 5)`, as `Task.has_boxes` says.
        answers: `(most, 6)`, of `detect`.
    """
    image = Image.fromarray(pixels)
    times = max(1, -(-_LEAST_SIDE // max(image.size)))
    image = image.resize((image.width * times, image.height * times))
    draw = ImageDraw.Draw(image)
    told = [(row[:4], int(row[-1]), "", _TRUE) for row in labels]
    rows = np.empty((0, 6)) if answers is None else answers
    told += [(row[:4], int(row[-1]), f" {row[4]:.2f}", _ANSWERED) for row in rows]
    for sides, number, score, color in told:
        if number < 0:
            continue
        left, top, right, bottom = (sides * np.array([*image.size] * 2)).tolist()
        draw.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=4)
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=color, width=2)
        at = (left + 4, bottom - 14 if color == _TRUE else top + 3)
        draw.text(at, names[number] + score, color, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)
