"""Reads the size of an encoded image from its header, in graph operations."""

from typing import Any

import tensorflow as tf

from kerastl.data import _bytes

_HEADER = 64  # bytes that hold the size in every format but JPEG


def num_pixels(data: Any) -> Any:
    """Read height times width from the header of an encoded image.

    Args:
        data: String tensor `()`, the bytes of the file.

    Returns:
        int64 tensor `()`: the pixels, or -1 where the bytes are no JPEG, PNG, GIF, BMP or WebP.

    Raises:
        tf.errors.InvalidArgumentError: A JPEG without a frame header.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, _HEADER), tf.uint8)
    head = tf.pad(head, [[0, _HEADER - tf.size(head)]])  # a cut header reads as no pixels
    return tf.case(
        [
            (
                _bytes.starts_with(data, b"\xff\xd8"),
                lambda: _area(*tf.unstack(tf.io.extract_jpeg_shape(data)[:2])),
            ),
            (_bytes.starts_with(data, b"\x89PNG\r\n\x1a\n"), lambda: _area(*_png(head))),
            (_bytes.starts_with(data, b"GIF8"), lambda: _area(*_numbers(head, 2, 8, 6))),
            (_bytes.starts_with(data, b"BM"), lambda: _area(*_numbers(head, 4, 22, 18))),
            (_bytes.starts_with(data, b"RIFF"), lambda: _webp(head)),
        ],
        default=lambda: tf.constant(-1, tf.int64),
    )


def _png(head: Any) -> list[Any]:
    return [_bytes.number(head[start : start + 4][::-1], 0, 4) for start in (16, 20)]


def _webp(head: Any) -> Any:
    lossy = [number & 0x3FFF for number in _numbers(head, 2, 26, 28)]
    bits = _bytes.number(head, 21, 4)
    lossless = [1 + (bits & 0x3FFF), 1 + (tf.bitwise.right_shift(bits, 14) & 0x3FFF)]
    extended = [1 + number for number in _numbers(head, 3, 24, 27)]
    kind = tf.strings.reduce_join(tf.gather(_CHARACTERS, tf.cast(head[8:16], tf.int32)))
    return tf.case(
        [
            (kind == b"WEBPVP8 ", lambda: _area(*lossy)),
            (kind == b"WEBPVP8L", lambda: _area(*lossless)),
            (kind == b"WEBPVP8X", lambda: _area(*extended)),
        ],
        default=lambda: tf.constant(-1, tf.int64),
    )


_CHARACTERS = [bytes([value]) for value in range(256)]


def _numbers(head: Any, length: int, *starts: int) -> list[Any]:
    return [_bytes.number(head, start, length) for start in starts]


def _area(height: Any, width: Any) -> Any:
    """Return the pixels; the height of a BMP is negative where its rows run downwards."""
    return tf.abs(tf.cast(height, tf.int64)) * tf.cast(width, tf.int64)
