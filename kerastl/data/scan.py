"""Which files are whole images, found by the very operation that trains."""

import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from kerastl.data import decode
from kerastl.errors import BadFile

MAX_PIXELS = 89_000_000
"""The most pixels an image may have: decoding more takes more than a gigabyte of memory."""

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ""),
    "PNG": (".png", ".apng", ""),
    "BMP": (".bmp", ".dib", ""),
    "GIF": (".gif", ""),
    "WEBP": (".webp", ""),
}  # the formats that TensorFlow decodes
_NEVER_BY_PILLOW = ("JPEG", "PNG", "GIF")  # there, Pillow accepts damage that TensorFlow sees
_ORIENTATION = 0x0112
_HASH_BUCKETS = 2**63 - 1
_THREADS = 8


class FileReport(NamedTuple):
    """What the scan found out about a readable image."""

    path: str
    format: str
    height: int
    width: int
    content: int
    """A hash of the bytes of the file, as `content_hash` computes it."""
    needs_pillow: bool
    """Whether Pillow reads the file, TensorFlow being unable to."""
    remarks: tuple[str, ...]
    """What is unusual about it, in words."""


@dataclass(frozen=True)
class _Header:
    path: str
    format: str
    needs_pillow: bool
    remarks: tuple[str, ...]


class _Decoded(NamedTuple):
    height: int
    width: int
    content: int


def scan_files(
    paths: Sequence[str], *, max_pixels: int = MAX_PIXELS
) -> tuple[list[FileReport], list[BadFile]]:
    """Read every file once, whole, and tell the images from the rest.

    Pillow reads the headers, so that an image that is too large is never decoded; the decoder of
    the training pipeline then decodes each file in full, in parallel.

    Args:
        paths: Files, whatever their ending.
        max_pixels: The most pixels, `height * width`, that an image may have.

    Returns:
        The readable images and the bad files, each in the order of `paths`.
    """
    with ThreadPoolExecutor(_THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about sizes and EXIF: the reports tell
        headers = list(pool.map(lambda path: _read_header(path, max_pixels), paths))
        decoded = _decode_all([header for header in headers if isinstance(header, _Header)])
        found = list(pool.map(lambda header: _report(header, decoded), headers))
    good = [report for report in found if isinstance(report, FileReport)]
    return good, [report for report in found if isinstance(report, BadFile)]


def content_hash(data: Any) -> Any:
    """Hash the string tensor `data` to an int64, to see whether a file has changed."""
    return tf.strings.to_hash_bucket_fast(data, _HASH_BUCKETS)


def printable(path: str) -> str:
    """Return a path that can be printed and sent, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _read_header(path: str, max_pixels: int) -> _Header | BadFile:
    try:
        with Image.open(path, formats=decode.PILLOW_FORMATS) as image:
            return _check_header(path, image, max_pixels)
    except UnidentifiedImageError:
        return BadFile(printable(path), _what_it_is(path))
    except Image.DecompressionBombError:
        return BadFile(printable(path), _too_large(max_pixels))
    except OSError as error:
        return BadFile(printable(path), error.strerror or _first_line(error))
    except Exception as error:  # a broken header makes Pillow raise all sorts
        return BadFile(printable(path), f"a broken header: {_first_line(error)}")


def _check_header(path: str, image: Image.Image, max_pixels: int) -> _Header | BadFile:
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    if image.width * image.height > max_pixels:
        return BadFile(printable(path), f"{image.width} x {image.height}: {_too_large(max_pixels)}")
    if kind == "WEBP" and animated:
        return BadFile(printable(path), "an animated WebP: save one of its frames as PNG")
    rotated = _is_rotated(image)
    needs_pillow = kind not in _ENDINGS or (
        kind in ("WEBP", "BMP") and (image.mode == "RGBA" or rotated)
    )
    return _Header(path, kind, needs_pillow, _remarks(path, kind, animated, rotated))


def _is_rotated(image: Image.Image) -> bool:
    with suppress(Exception):  # broken EXIF is no reason to refuse the pixels
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    return False


def _remarks(path: str, kind: str, animated: bool, rotated: bool) -> tuple[str, ...]:
    ending = os.path.splitext(path)[1].lower()
    misnamed = ending not in _ENDINGS.get(kind, (ending,))
    remarks = {
        f"not what the ending {ending} says, but {kind}": misnamed,
        "animated, of which the first frame is used": animated,
        "turned upright by the EXIF orientation": rotated,
    }
    return tuple(remark for remark, holds in remarks.items() if holds)


def _decode_all(headers: Sequence[_Header]) -> dict[str, _Decoded]:
    """Decode what TensorFlow should be able to; files that fail are left out."""
    mine = [header for header in headers if not header.needs_pillow]
    paths = [header.path for header in mine]
    jpeg_only = all(header.format == "JPEG" for header in mine)

    def measure(index: Any, path: Any) -> Any:
        data = tf.io.read_file(path)
        shape = tf.shape(decode.decode_image(data, jpeg_only=jpeg_only), tf.int64)
        return tf.stack([index, shape[0], shape[1], content_hash(data)])

    names = tf.constant([os.fsencode(path) for path in paths], tf.string)
    pipeline = tf.data.Dataset.from_tensor_slices(names).enumerate()
    pipeline = pipeline.map(measure, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    rows = [row for batch in pipeline.batch(256).as_numpy_iterator() for row in batch.tolist()]
    return {paths[index]: _Decoded(*measures) for index, *measures in rows}


def _report(header: _Header | BadFile, decoded: dict[str, _Decoded]) -> FileReport | BadFile:
    if isinstance(header, BadFile):
        return header
    path, kind = header.path, header.format
    if path in decoded:
        return FileReport(path, kind, *decoded[path], False, header.remarks)
    try:
        data = tf.io.read_file(os.fsencode(path))
        if kind in _NEVER_BY_PILLOW:
            decode.decode_image(data)
            return BadFile(printable(path), "it changed while it was read")
        height, width, _ = decode.pillow_pixels(data.numpy()).shape
        return FileReport(path, kind, height, width, int(content_hash(data)), True, header.remarks)
    except Exception as error:  # decoders raise all sorts
        reason = f"a damaged or incomplete {kind}: {_first_line(error)}"
        return BadFile(printable(path), reason)


def _what_it_is(path: str) -> str:
    """Say what a file that is no known image seems to be."""
    with open(path, "rb") as file:
        start = file.read(32).lstrip()
    if not start:
        return "an empty file"
    if start.startswith(b"<"):
        return "HTML or XML, not an image"
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "HEIC: convert it to JPEG or PNG"
    return "not an image of a known format"


def _too_large(max_pixels: int) -> str:
    return f"more pixels than max_pixels={max_pixels:,}"


def _first_line(error: Exception) -> str:
    """Return the message of an error without TensorFlow's node names."""
    lines = re.sub(r"\{\{function_node [^}]*\}\}|\[Op:\w+\]", "", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
