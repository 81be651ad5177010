"""Applies a classifier to every window of a larger image."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerastl._checks import check_int
from kerastl._task import check_supports
from kerastl._typed import typed
from kerastl.data.decode import resize
from kerastl.data.options import RGB
from kerastl.errors import ArgumentError
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.fully_convolutional import to_fully_convolutional
from kerastl.model.heads import task_of

# Divides by every stride up to 10 and by powers of two up to 1,024, so that how many cells so many
# pixels more give tells the stride.
_FAR = 2**10 * 3**2 * 5 * 7
TIMES_LARGER = 2


@typed
@dataclass(frozen=True)
class ClassMap:
    """The predictions of a classifier for the windows of a larger image.

    Args:
        probabilities: float32 `(rows, columns, num_classes)`, one row per window.
        window: (height, width) of a window, in pixels of the resized image.
        stride: (down, right), distance between two windows, in pixels of the resized image.
        looked_at: (height, width) of the resized image.
        image_size: (height, width) of the original image.
    """

    probabilities: np.ndarray
    window: tuple[int, int]
    stride: tuple[int, int]
    looked_at: tuple[int, int]
    image_size: tuple[int, int]

    def strongest(self, class_id: int) -> tuple[int, int]:
        """Return (row, column) of the window with the highest probability of a class."""
        of_class = self.probabilities[..., class_id]
        row, column = np.unravel_index(of_class.argmax(), of_class.shape)
        return int(row), int(column)

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Return (top, left, bottom, right) of a window, in pixels of the original image."""
        down, right = (
            own / seen for own, seen in zip(self.image_size, self.looked_at, strict=True)
        )
        top, left = row * self.stride[0], column * self.stride[1]
        bottom, end = top + self.window[0], left + self.window[1]
        return top * down, left * right, bottom * down, end * right

    def heat(self, class_id: int) -> np.ndarray:
        """Return the probability of a class around each pixel of the original image.

        Values are interpolated between the centres of the windows, and constant outside the outer
        centres.

        Returns:
            float32 `(height, width)`, 0 to 1.
        """
        values = self.probabilities[..., class_id]
        for axis in (0, 1):
            pixels = (np.arange(self.image_size[axis]) + 0.5) / self.image_size[axis]
            centres = self.window[axis] / 2 + self.stride[axis] * np.arange(values.shape[axis])
            at = pixels * self.looked_at[axis]
            lines = [np.interp(at, centres, line) for line in np.moveaxis(values, axis, -1)]
            values = np.moveaxis(np.stack(lines), -1, axis)
        return values.astype("float32")


@typed
class ClassMapper:
    """Applies a classifier to all windows of larger images.

    Args:
        model: as for `to_fully_convolutional`.

    Raises:
        ArgumentError: the model has no feature map, or no constant stride.

    Example:
        >>> seen = kerastl.ClassMapper(model)(pixels)
        >>> seen.box(*seen.strongest(class_id=0))
        (0.0, 96.0, 224.0, 320.0)
    """

    def __init__(self, model: keras.Model):
        check_supports(task_of(model).name, "map")
        if model.inputs[0].shape[-1] != RGB:
            raise ArgumentError(
                "A class map needs RGB images. Received: a model for images of shape "
                f"{model.inputs[0].shape[1:]}."
            )
        self.window = image_size_of(model)
        self.network = to_fully_convolutional(model)
        self.stride = self._stride(0), self._stride(1)

    def _stride(self, axis: int) -> int:
        size = list(self.window)
        size[axis] += _FAR
        cells = self.network.compute_output_shape((1, *size, 3))[1 + axis] - 1
        if cells < 1 or _FAR % cells:
            raise ArgumentError(
                f"{self.network.name!r} does not have a whole number of pixels between two "
                f"windows: {_FAR} more pixels give {cells} more windows."
            )
        return _FAR // int(cells)

    def size_for(self, image_size: tuple[int, int], shorter: int | None = None) -> tuple[int, int]:
        """Return the size to which an image is resized, so that the windows fill it.

        Args:
            image_size: (height, width) of the image.
            shorter: the desired shorter side in pixels. Default: twice the input size.

        Raises:
            ArgumentError: the size is smaller than a window.
        """
        least = min(self.window)
        wanted = check_int(
            "shorter", TIMES_LARGER * least if shorter is None else shorter, least,
            advice=f"The model uses windows of {self.window[0]} x {self.window[1]} pixels.",
        )  # fmt: skip
        scale = wanted / min(image_size)
        height, width = (
            own + step * max(0, round((side * scale - own) / step))
            for side, own, step in zip(image_size, self.window, self.stride, strict=True)
        )
        return height, width

    def __call__(self, image: Any, shorter: int | None = None) -> ClassMap:
        """Look at one image.

        Args:
            image: pixels 0-255 `(height, width, 3)`.
            shorter: as `size_for` takes it.
        """
        pixels = np.asarray(image, "float32")
        if pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
            raise ArgumentError(
                "`image` must be pixels 0-255 of shape (height, width, 3). Received shape "
                f"{pixels.shape}."
            )
        own = (pixels.shape[0], pixels.shape[1])
        size = self.size_for(own, shorter)
        looked = np.asarray(resize(pixels, size), "float32")
        probabilities = np.asarray(self.network(looked[None], training=False))[0]
        return ClassMap(probabilities, self.window, self.stride, size, own)
