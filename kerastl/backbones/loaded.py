"""What every way to a backbone ends in."""

from dataclasses import dataclass
from typing import Any

import keras

from kerastl._checks import check_int
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.errors import ArgumentError


@dataclass(frozen=True)
class LoadedBackbone:
    """A network without top or pooling (unless its top was asked for), and what its pixels need.

    Args:
        model: Functional `keras.Model` with one image input; the preprocessing is not in it.
        name: Canonical spelling of the builder with its arguments, or the user's model's name.
        preprocessing: What has to be done to raw RGB pixels of 0-255 before `model`.
        image_size: (height, width) in pixels.
        weights: `"imagenet"`, `"embedded"`, `"random"`, the path of a file, or `"model"` for a
            user's model.
        weights_sha256: Hash of the file that the weights were read from, where there is one.
    """

    model: keras.Model
    name: str
    preprocessing: Preprocessing
    image_size: tuple[int, int]
    weights: str
    weights_sha256: str | None = None


def both_sides(image_size: Any, least: int = 1, advice: str = "") -> tuple[int, int]:
    """Return height and width of a side, or of (height, width), each an int from `least`."""
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2:
        raise ArgumentError(
            "`image_size` must be a side or (height, width) in pixels. "
            f"Received: image_size={image_size!r}"
        )
    height, width = (check_int("image_size", side, least, advice=advice) for side in sides)
    return height, width
