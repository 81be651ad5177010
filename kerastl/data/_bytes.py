"""Reads properties of an image file from its bytes, in graph operations."""

from typing import Any

import tensorflow as tf

_HEAD = 65_536  # bytes searched for metadata: a JPEG segment cannot be longer
_ORIENTATION_TAG = 0x0112
_SHORT = 3  # the type of the values of that tag


def starts_with(data: Any, signature: bytes) -> Any:
    """Whether the string `data` begins with `signature`."""
    return tf.strings.substr(data, 0, len(signature)) == signature


def head(data: Any) -> Any:
    """Return the first 64 KiB of the string `data` as uint8 `(n,)`."""
    return tf.io.decode_raw(tf.strings.substr(data, 0, _HEAD), tf.uint8)


def find(data: Any, pattern: bytes) -> Any:
    """Return where `pattern` first occurs in the bytes `(n,)` as int32, or -1."""
    starts = tf.cast(tf.where(data[: 1 - len(pattern)] == pattern[0])[:, 0], tf.int32)
    windows = tf.gather(data, starts[:, tf.newaxis] + tf.range(len(pattern)))
    found = tf.reduce_all(windows == tf.constant(list(pattern), tf.uint8), axis=1)
    return tf.concat([tf.boolean_mask(starts, found), [-1]], 0)[0]


def number(data: Any, start: int, length: int) -> Any:
    """Read `length` of the bytes `(n,)` from `start` as one little-endian int32."""
    place = 8 * tf.range(length)
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(data[start:][:length], tf.int32), place))


def orientation(data: Any, marker: bytes) -> Any:
    """Read the EXIF orientation, 1 to 8, that follows `marker` in the bytes `(n,)`; else 1."""
    at = find(data, marker)
    return tf.cond(at < 0, lambda: 1, lambda: _orientation_tag(data[at + len(marker) :]))


def overwrite(data: Any, start: Any, new: Any) -> Any:
    """Return the string `data` with the string `new` in place of what is at `start`."""
    end = start + tf.strings.length(new)
    rest = tf.strings.length(data) - end
    before = tf.strings.substr(data, tf.zeros_like(start), start)
    return tf.strings.join([before, new, tf.strings.substr(data, end, rest)])


def _orientation_tag(tiff: Any) -> Any:
    """Read the orientation from the first directory of a TIFF structure of bytes `(n,)`."""
    little = tf.reduce_all(tiff[:1] == ord("I"))
    halves = tf.concat([_shorts(tiff[4:8], little, 2), [[0, 0]]], 0)[0]
    start = tf.where(little, halves[0], halves[1]) + 2  # the other half is 0 within 64 KiB
    entries = _shorts(tiff[start:], little, 6)
    count = tf.reduce_sum(_shorts(tiff[start - 2 : start], little, 1))
    tag, kind, value = (entries[:count, column] for column in (0, 1, 4))
    found = (tag == _ORIENTATION_TAG) & (kind == _SHORT) & (value >= 1) & (value <= 8)
    return tf.concat([tf.boolean_mask(value, found), [1]], 0)[0]


def _shorts(data: Any, little: Any, columns: int) -> Any:
    """Read bytes `(n,)` as rows of unsigned 16-bit numbers, leaving out an unfinished row."""
    rows = tf.size(data) // (2 * columns)
    pairs = tf.cast(tf.reshape(data[: rows * 2 * columns], [rows, columns, 2]), tf.int32)
    first, second = pairs[..., 0], pairs[..., 1]
    return tf.where(little, second, first) * 256 + tf.where(little, first, second)
