"""Decodes a batch of encoded images in graph operations, each row separately."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerastl.data.decode import decode_image, resize
from kerastl.data.header import num_pixels
from kerastl.data.options import AS_ALWAYS, PixelRules
from kerastl.serving.cost import USUAL_SCANS


@dataclass(frozen=True)
class Limits:
    """The largest image that a SavedModel decodes, and how it is scaled.

    Args:
        max_bytes: of the encoded file; a longer one is not looked at.
        max_pixels: height times width, by its header; decoding takes 3 bytes each, or more. Those
            of a JPEG count again for every ten scans.
        rules: how an image becomes pixels.
    """

    max_bytes: int
    max_pixels: int
    rules: PixelRules = AS_ALWAYS


def decode_batch(image_bytes: Any, size: tuple[int, int], limits: Limits) -> tuple[Any, ...]:
    """Decode a batch of images, and return which of them could be decoded.

    One damaged image makes every decoding operation fail, and its batch with it. A data set inside
    the graph drops the element that failed instead; what is left carries the number of its row.

    Args:
        image_bytes: String tensor `(batch,)`, encoded images.
        size: `(height, width)` in pixels to bring them to.
        limits: Of the images that are decoded.

    Returns:
        uint8 tensor `(batch, *size, 3)`, black where an image is none; bool `(batch,)`; and heights
        and widths of the decoded images, int32 `(batch, 2)`.
    """
    num_rows = tf.size(image_bytes)

    def decode(row: Any) -> tuple[Any, ...]:
        pixels = decode_within(image_bytes[row], limits)
        resized = resize(pixels, size, limits.rules.resize)
        return tf.cast(row, tf.int32), resized, tf.shape(pixels)[:2]

    rows = tf.data.Dataset.range(tf.cast(num_rows, tf.int64))
    decoded = rows.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    # One row more than there are, so that a batch of damaged images is no empty data set.
    nothing = tf.zeros((*size, 3), tf.uint8), tf.zeros((2,), tf.int32)
    end = tf.data.Dataset.from_tensors((num_rows, *nothing))
    whole = decoded.concatenate(end).batch(tf.cast(num_rows, tf.int64) + 1)
    kept, pixels, sides = (tensor[:-1] for tensor in whole.get_single_element())
    shape = tf.stack([num_rows, *size, 3])
    images = tf.scatter_nd(kept[:, tf.newaxis], pixels, shape)
    valid = tf.scatter_nd(kept[:, tf.newaxis], tf.ones_like(kept), [num_rows]) > 0
    sizes = tf.scatter_nd(kept[:, tf.newaxis], sides, tf.stack([num_rows, 2]))
    return tf.ensure_shape(images, (None, *size, 3)), valid, sizes


def decode_within(data: Any, limits: Limits) -> Any:
    """Decode an image whose header is read first, only if the file is not too long for that.

    String tensor `()` to uint8 `(height, width, 3)`.
    """
    short = tf.debugging.Assert(tf.strings.length(data) <= limits.max_bytes, ["too many bytes"])
    with tf.control_dependencies([short]):
        pixels = num_pixels(tf.identity(data))
    work = pixels * tf.maximum(num_scans(data), USUAL_SCANS) // USUAL_SCANS
    fits = tf.debugging.Assert((pixels >= 0) & (work <= limits.max_pixels), ["too many pixels"])
    with tf.control_dependencies([fits]):
        return decode_image(tf.identity(data), bit_depth=limits.rules.bit_depth)


def num_scans(data: Any) -> Any:
    """Return at least how many scans the bytes `()` of a JPEG have, int64 `()`; 0 for others."""

    def count() -> Any:
        content = tf.io.decode_raw(data, tf.uint8)
        return tf.math.count_nonzero((content[:-1] == 0xFF) & (content[1:] == 0xDA))

    is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
    return tf.cond(is_jpeg, count, lambda: tf.constant(0, tf.int64))
