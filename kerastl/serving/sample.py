"""The images for the comparison of artifacts: pixels, files and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerastl.data.decode import resize
from kerastl.data.options import AS_ALWAYS, RGB, PixelRules
from kerastl.data.pixels import FileSource, as_pixels
from kerastl.data.split import Split
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import ArgumentError

MAX_IMAGES = 64
GENERATED = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """Images to compare artifacts on.

    Args:
        images: uint8 `(n, height, width, 3)`, of the model's size.
        files: encoded images that decode to `images`.
        labels: ints `(n,)`, or None where they are not known.
        source: what they are, in words.
    """

    images: np.ndarray
    files: list[bytes]
    labels: np.ndarray | None
    source: str

    @property
    def is_real(self) -> bool:
        """Whether somebody gave the images."""
        return self.source != "generated"

    def every_other(self) -> "Sample":
        """Return the images at odd places."""
        labels = None if self.labels is None else self.labels[1::2]
        return Sample(self.images[1::2], self.files[1::2], labels, self.source)


def take_sample(data: Any, size: tuple[int, int], rules: PixelRules | None = None) -> Sample:
    """Take up to 64 images, spread over all of them.

    Args:
        data: a split of `load_data`, pixels 0-255 `(n, height, width[, 1 or 3])`, a pair of those
            and their labels, paths of images and folders, or None for eight generated images.
        size: height and width of the model's images.
        rules: how paths and pixels become those of the model. Default: as a split has it, or as
            always.

    Raises:
        ArgumentError: `data` is nothing of that, or has no images.
        DataError: files are no readable images.
    """
    rules = rules or (data.source.rules if isinstance(data, Split) else AS_ALWAYS)
    if data is None:
        # Coarse coloured patterns spread over more of a network than noise does.
        shape = (GENERATED, 5, 5, rules.channels)
        coarse = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        images = tf.image.resize(coarse, size, method="bilinear").numpy().astype("uint8")
        return _of_pixels(images, None, "generated")
    if isinstance(data, Split):
        if data.source.rules.resize != rules.resize:
            raise ArgumentError(
                f"The images for the comparison must have resize={rules.resize!r}, like the "
                f"model. Received: {data.source.rules.resize!r}. Load them with "
                "`load_data(..., resize=)`."
            )
        return _of_split(data, size)
    if _are_paths(data):
        return _of_split(load_unlabelled([str(path) for path in data], rules=rules)[0], size)
    pixels, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    pixels = np.asarray(pixels)
    if pixels.ndim not in (3, 4) or not len(pixels) or pixels.dtype.kind not in "uif":
        raise ArgumentError(
            "`parity_data` must be a split (`data.test`), pixels (n, height, width, 3), a pair of "
            f"pixels and labels, or paths of images. Received: {type(data).__name__} of shape "
            f"{pixels.shape}"
        )
    rows = _spread(len(pixels))
    chosen = pixels[rows] if pixels.ndim == 4 else pixels[rows][..., np.newaxis]
    images = resize(tf.constant(as_pixels(chosen, rules)), size, rules.resize).numpy()
    return _of_pixels(images, None if labels is None else np.asarray(labels)[rows], "given")


def _are_paths(data: Any) -> bool:
    if isinstance(data, (str, bytes)) or not isinstance(data, Sequence) or not data:
        return False
    return all(isinstance(path, str) or hasattr(path, "__fspath__") for path in data)


def _of_split(split: Split, size: tuple[int, int]) -> Sample:
    if not len(split):
        raise ArgumentError("`parity_data` contains no images. Pass a split with images.")
    chosen = split.subset(_spread(len(split)))
    images = np.concatenate(list(chosen.images(size).as_numpy_iterator()))
    # There are no classes in what is of `load_unlabelled`.
    labels = np.asarray(chosen.labels) if chosen.num_classes else None
    source = chosen.source
    if not isinstance(source, FileSource) or any(r.needs_pillow for r in source.reports):
        return _of_pixels(images, labels, "given")
    return Sample(
        images, [Path(report.path).read_bytes() for report in source.reports], labels, "given"
    )


def _of_pixels(images: np.ndarray, labels: np.ndarray | None, source: str) -> Sample:
    # No file that is decoded holds other channels than RGB.
    files = [tf.io.encode_png(image).numpy() for image in images if image.shape[-1] == RGB]
    return Sample(images, files, labels, source)


def _spread(count: int) -> np.ndarray:
    """Return up to `MAX_IMAGES` different rows, evenly from all."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_IMAGES)).round().astype(int))
