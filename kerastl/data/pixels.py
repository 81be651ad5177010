"""Sources of the pixels of a split: files, an array, or a spool file on disk.

Each source gives `dataset(indices, image_size)`, the uint8 images `(height, width, 3)` at a data
set of indices, in its order; `subset(rows)`; `sizes()`; `contents()`, one text for each image that
changes when the image does; `identities()`, which changes with the name of its file, and with how
it is brought to size, too; and `prints()`, which are equal for equal pixels from any source.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerastl.data import changed, decode, examine
from kerastl.data.file_report import FileReport, printable
from kerastl.data.near_duplicates import Print, print_of
from kerastl.data.options import AS_ALWAYS, RGB, PixelRules

_MANY_CUT = 0.05  # of the images, of which a crop keeps less than half
_CHUNK = 64  # images that an array gives at a time

AS_IT_IS: Any = tf.autograph.experimental.do_not_convert
"""Around functions of data sets: AutoGraph would rewrite them, in half a second, for nothing."""


@dataclass(frozen=True, eq=False)
class FileSource:
    """Pixels of image files that have been scanned."""

    reports: Sequence[FileReport]
    names: Sequence[str]
    """The paths relative to the source, which do not change when it moves."""
    rules: PixelRules = AS_ALWAYS

    def __len__(self) -> int:
        return len(self.reports)

    def dataset(self, indices: Any, image_size: tuple[int, int]) -> Any:
        """Return the images at a data set of int64 indices, resized, in its order."""
        paths = tf.constant([os.fsencode(report.path) for report in self.reports], tf.string)
        contents = tf.constant([report.content for report in self.reports], tf.int64)
        needs_pillow = [report.needs_pillow for report in self.reports]
        by_pillow = tf.constant(needs_pillow, tf.bool)
        jpeg_only = all(report.format == "JPEG" for report in self.reports)
        bits, channels = self.rules.bit_depth, self.rules.channels

        def load(index: Any) -> Any:
            data = _read_unchanged(paths[index], contents[index])
            if channels != RGB:
                image = decode.decode_with_pillow(data, bits, channels)
            elif any(needs_pillow):
                by_both = (
                    lambda: decode.decode_with_pillow(data, bits),
                    lambda: decode.decode_image(data, bit_depth=bits),
                )
                image = tf.cond(by_pillow[index], *by_both)
            else:
                image = decode.decode_image(data, jpeg_only=jpeg_only, bit_depth=bits)
            return decode.resize(image, image_size, self.rules.resize)

        return indices.map(AS_IT_IS(load), num_parallel_calls=tf.data.AUTOTUNE)

    def subset(self, rows: np.ndarray) -> "FileSource":
        """Return the source of some of the images."""
        reports = [self.reports[row] for row in rows]
        return FileSource(reports, [self.names[row] for row in rows], self.rules)

    def sizes(self) -> np.ndarray:
        """Return height and width of each image, int64 `(n, 2)`."""
        return np.array([[r.height, r.width] for r in self.reports], np.int64).reshape(-1, 2)

    def contents(self) -> list[str]:
        """Return a text for each image that is equal for equal images."""
        depth = self.rules.bit_depth
        bits = "" if depth is None else f" of {depth} bits"
        return [f"{report.content}{bits}" for report in self.reports]

    def prints(self) -> list[Print]:
        """Return what each image looks like."""
        return [Print(report.picture, report.look) for report in self.reports]

    def identities(self) -> list[str]:
        """Return a text for each image that changes when the image or its name does."""
        pairs = zip(self.names, self.contents(), strict=True)
        return _by_rules((f"{printable(name)} {content}" for name, content in pairs), self.rules)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Pixels of an array of images of one size."""

    images: np.ndarray
    """Numbers 0 to 255 `(n, height, width)` or `(n, height, width, 1 or 3)`."""
    rows: np.ndarray
    """Which of them belong to the source, int64 `(len,)`."""
    rules: PixelRules = AS_ALWAYS

    def __len__(self) -> int:
        return len(self.rows)

    def dataset(self, indices: Any, image_size: tuple[int, int]) -> Any:
        """Return the images at a data set of int64 indices, resized, in its order."""

        def load(chunk: Any) -> Any:
            images = tf.numpy_function(self.take, [chunk], tf.uint8, stateful=False)
            images = tf.ensure_shape(images, [None, None, None, self.rules.channels])
            return decode.resize(images, image_size, self.rules.resize)

        chunks = indices.batch(_CHUNK)
        return chunks.map(AS_IT_IS(load), num_parallel_calls=tf.data.AUTOTUNE).unbatch()

    def subset(self, rows: np.ndarray) -> "ArraySource":
        """Return the source of some of the images."""
        return ArraySource(self.images, self.rows[rows], self.rules)

    def sizes(self) -> np.ndarray:
        """Return height and width of each image, int64 `(n, 2)`."""
        return np.tile(np.array(self.images.shape[1:3], np.int64), (len(self), 1))

    def contents(self) -> list[str]:
        """Return a text for each image that is equal for equal images."""
        return [_digest(self.take(np.array([index]))[0]) for index in range(len(self))]

    def prints(self) -> list[Print]:
        """Return what each image looks like."""
        starts = range(0, len(self), _CHUNK)
        chunks = (self.take(np.arange(at, min(at + _CHUNK, len(self)))) for at in starts)
        return [one for chunk in chunks for one in _prints(chunk)]

    def identities(self) -> list[str]:
        """Return a text for each image that changes when the image does."""
        return _by_rules(self.contents(), self.rules)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at `indices` as uint8 `(n, height, width, 3)`."""
        images = self.images[self.rows[indices]]
        return as_pixels(images if images.ndim == 4 else images[..., np.newaxis], self.rules)


@dataclass(frozen=True, eq=False)
class SpoolSource:
    """Pixels of images of any size, one after another in a file."""

    pixels: np.ndarray
    """uint8 `(total,)`, a memory map."""
    starts: np.ndarray
    """Where each image begins, int64 `(n,)`."""
    shapes: np.ndarray
    """Height and width, int64 `(n, 2)`."""
    rules: PixelRules = AS_ALWAYS

    def __len__(self) -> int:
        return len(self.starts)

    def dataset(self, indices: Any, image_size: tuple[int, int]) -> Any:
        """Return the images at a data set of int64 indices, resized, in its order."""

        def load(index: Any) -> Any:
            image = tf.numpy_function(self.take, [index], tf.uint8, stateful=False)
            image = tf.ensure_shape(image, [None, None, self.rules.channels])
            return decode.resize(image, image_size, self.rules.resize)

        return indices.map(AS_IT_IS(load), num_parallel_calls=tf.data.AUTOTUNE)

    def subset(self, rows: np.ndarray) -> "SpoolSource":
        """Return the source of some of the images."""
        return SpoolSource(self.pixels, self.starts[rows], self.shapes[rows], self.rules)

    def sizes(self) -> np.ndarray:
        """Return height and width of each image, int64 `(n, 2)`."""
        return self.shapes

    def contents(self) -> list[str]:
        """Return a text for each image that is equal for equal images."""
        return [_digest(self.take(index)) for index in range(len(self))]

    def prints(self) -> list[Print]:
        """Return what each image looks like."""
        return [_prints(self.take(index)[np.newaxis])[0] for index in range(len(self))]

    def identities(self) -> list[str]:
        """Return a text for each image that changes when the image does."""
        return _by_rules(self.contents(), self.rules)

    def take(self, index: Any) -> np.ndarray:
        """Return one image as uint8 `(height, width, 3)`."""
        start, shape = self.starts[index], (*self.shapes[index], self.rules.channels)
        return np.asarray(self.pixels[start : start + math.prod(shape)]).reshape(shape)


@dataclass(frozen=True, eq=False)
class KeptSource:
    """Pixels that are in memory at one size already."""

    images: Any
    """uint8 tensor `(n, height, width, 3)`."""

    def dataset(self, indices: Any, image_size: tuple[int, int]) -> Any:
        """Return the images at a data set of int64 indices, resized, in its order."""
        del image_size
        return indices.batch(_CHUNK).map(lambda chunk: tf.gather(self.images, chunk)).unbatch()


PixelSource = FileSource | ArraySource | SpoolSource


def as_pixels(images: np.ndarray, rules: PixelRules = AS_ALWAYS) -> np.ndarray:
    """Round images `(..., channels)` of numbers 0 to 255 to uint8; gray ones become RGB.

    With a bit depth numbers of other types than uint8 are scaled from 0 to `2**bit_depth - 1`.
    """
    if images.dtype != np.uint8:
        images = decode.to_eight_bits(images, 8 if rules.bit_depth is None else rules.bit_depth)
    gray = images.shape[-1] == 1 and rules.channels == RGB
    return np.repeat(images, RGB, axis=-1) if gray else images


def to_show(images: np.ndarray) -> np.ndarray:
    """Return images `(..., channels)` as RGB for a screen: of other channels the mean, as gray."""
    if images.shape[-1] == RGB:
        return images
    gray = images.mean(axis=-1, keepdims=True).astype(images.dtype)
    return np.repeat(gray, RGB, axis=-1)


def warnings_of_pixels(sizes: np.ndarray, rules: PixelRules) -> list[str]:
    """Warn of channels that no network knows, and of images that a crop halves."""
    warnings = []
    if rules.channels != RGB:
        warnings.append(
            f"images have {rules.channels} channels: the first layer of a pretrained network "
            "is widened from the mean of its RGB kernels, so the network loses what it "
            "learned about colours"
        )
    if rules.resize != "crop":
        return warnings
    long = int(np.sum(sizes.max(axis=1) > 2 * sizes.min(axis=1)))
    if long >= _MANY_CUT * len(sizes):
        warnings.append(
            f"{long:,} of {len(sizes):,} images are more than twice as long as wide (or as "
            "wide as long), and resize='crop' keeps less than half of each; `resize='pad'` "
            "and `resize='squash'` keep everything"
        )
    return warnings


def _by_rules(texts: Iterable[str], rules: PixelRules) -> list[str]:
    """Return texts of images that change with how those are brought to size, too."""
    how = "" if rules.resize == AS_ALWAYS.resize else f" {rules.resize}"
    return [f"{text}{how}" for text in texts]


def _read_unchanged(path: Any, content: Any) -> Any:
    """Read a file; one that is not what was scanned is an error that names it."""
    data = tf.io.read_file(path)
    unchanged = examine.content_hash(data) == content
    with tf.control_dependencies([tf.debugging.Assert(unchanged, [changed.MESSAGE, path])]):
        return tf.identity(data)


def _prints(images: np.ndarray) -> list[Print]:
    with tf.device("CPU:0"):
        thumbnails = examine.gray_thumbnails(tf.constant(images)).numpy().astype(np.uint8)
    height, width = images.shape[1:3]
    return [print_of(height, width, thumbnail.tobytes()) for thumbnail in thumbnails]


def _digest(image: np.ndarray) -> str:
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
