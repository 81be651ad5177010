"""`LoadedBackbone`, the result of loading any backbone."""

from dataclasses import dataclass

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
    """

    model: keras.Model
    name: str
    preprocessing: Preprocessing
    image_size: tuple[int, int]
    weights: str


def check_image_input(model: keras.Model) -> tuple[int | None, int | None]:
    """Return the height and width that a network takes; raise unless it takes images."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] is None:
        of = " of KerasHub" if type(model).__module__.startswith("keras_hub.") else ""
        raise ArgumentError(
            "A backbone must have one input of images, (batch, height, width, channels). Received: "
            f"{type(model).__name__}{of} {model.name!r} with inputs {shapes}"
        )
    return shapes[0][1], shapes[0][2]
