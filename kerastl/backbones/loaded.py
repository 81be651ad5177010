"""What every way to a backbone ends in."""

from dataclasses import dataclass
from typing import Any

import keras

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


def both_sides(image_size: Any) -> tuple[Any, Any]:
    """Return height and width of a side, or of (height, width)."""
    if not isinstance(image_size, (tuple, list)):
        return image_size, image_size
    if len(image_size) != 2:
        raise ArgumentError(
            "`image_size` must be a side or (height, width) in pixels. "
            f"Received: image_size={image_size!r}"
        )
    return image_size[0], image_size[1]
