"""Examines one file: the header with Pillow, the pixels with the operation of training."""

import functools
import importlib.util
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from kerastl._hashing import sha256_of_file
from kerastl.data import decode
from kerastl.data.file_report import FileReport, printable
from kerastl.data.near_duplicates import SIDE, print_of
from kerastl.data.options import RGB
from kerastl.errors import BadFile

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ""),
    "PNG": (".png", ".apng", ""),
    "BMP": (".bmp", ".dib", ""),
    "GIF": (".gif", ""),
    "WEBP": (".webp", ""),
}  # the formats that TensorFlow decodes
_PLAIN = ("JPEG", "PNG")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_HASH_BUCKETS = 2**63 - 1
_BYTES_A_PIXEL, _BYTES_BESIDE = 16, 2**28  # more than an image needs: it would fill the memory
_THREADS = 8
_CHUNK = 16  # files that are decoded in one call


class _Header(NamedTuple):
    path: str
    format: str
    needs_pillow: bool
    is_deep: bool
    """Whether its values have more than 8 bits."""
    remarks: tuple[str, ...]


class Asked(NamedTuple):
    """Settings for the examination of files."""

    max_pixels: int
    """The most pixels, `height * width`, that an image may have."""
    sums: bool = False
    """Whether to compute the SHA-256 of each image."""
    bit_depth: int | None = None
    """As `load_data` takes it."""
    channels: int = RGB
    """The same."""


def examine_files(paths: Sequence[str], asked: Asked) -> list[FileReport | BadFile]:
    """Read every file once, whole, and report on each in its order.

    Pillow reads the headers, so that an image that is too large is never decoded; the decoder of
    the training pipeline then decodes each file in full, in threads.

    Args:
        paths: Files, whatever their ending.
        asked: What to compute.
    """
    return _in_threads(paths, functools.partial(_examine_chunk, asked=asked))


def examine_plain(paths: Sequence[str], asked: Asked) -> list[FileReport | None]:
    """Report on complete JPEG and PNG files, whose decoders are safe for any bytes.

    None for all others, and for the neighbours of one that is damaged: `examine_files` tells.
    """
    return _in_threads(paths, functools.partial(_examine_plain_chunk, asked=asked))


def _in_threads(paths: Sequence[str], examine: Callable[[Sequence[str]], list[Any]]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about sizes and EXIF: the reports tell
        chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
        return [report for chunk in pool.map(examine, chunks) for report in chunk]


def content_hash(data: Any) -> Any:
    """Hash the string tensor `data` to an int64, to see whether a file has changed."""
    return tf.strings.to_hash_bucket_fast(data, _HASH_BUCKETS)


def _examine_chunk(paths: Sequence[str], asked: Asked) -> list[FileReport | BadFile]:
    headers = [_read_header(path, asked) for path in paths]
    mine = [each for each in headers if isinstance(each, _Header) and not each.needs_pillow]
    measures = _measure_together(mine, asked)
    return [
        header if isinstance(header, BadFile) else _report(header, measures.get(header.path), asked)
        for header in headers
    ]


def _examine_plain_chunk(paths: Sequence[str], asked: Asked) -> list[FileReport | None]:
    read = [_read_header(path, asked) for path in paths]
    headers = [header for header in read if isinstance(header, _Header)]
    plain = [header for header in headers if header.format in _PLAIN and not header.is_deep]
    measures = _measure_together(plain, asked)
    reports = {
        header.path: _report(header, measures[header.path], asked)
        for header in plain
        if header.path in measures
    }
    found = [reports.get(path) for path in paths]
    return [report if isinstance(report, FileReport) else None for report in found]


def _measure_together(headers: Sequence[_Header], asked: Asked) -> dict[str, list[int]]:
    """Return the measures of files, by path; of none of a kind where one of it is damaged."""
    measures: dict[str, list[int]] = {}
    for jpeg_only in (True, False):
        together = [each.path for each in headers if (each.format == "JPEG") == jpeg_only]
        if together:
            with suppress(tf.errors.OpError):  # none is measured when one of them fails
                found = _measure(together, jpeg_only, asked.bit_depth)
                measures.update(zip(together, found, strict=True))
    return measures


def _report(header: _Header, measures: Sequence[int] | None, asked: Asked) -> FileReport | BadFile:
    """Report on an image; one without `measures` is decoded by itself, to learn what is wrong."""
    path, kind, _, is_deep, remarks = header
    try:
        needs_pillow, (height, width, content, *levels) = (
            (False, measures) if measures else _measure_alone(header, asked)
        )
        peak = decode.peak(path, asked.channels) if is_deep else 0
        digest = sha256_of_file(path) if asked.sums else ""
    except Exception as error:  # decoders raise all sorts
        return BadFile(printable(path), f"a damaged or incomplete {kind}: {first_line(error)}")
    seen = print_of(height, width, bytes(levels))
    told = (path, kind, height, width, content, needs_pillow, remarks, *seen, peak, digest)
    return FileReport(*told, asked.channels)


def _read_header(path: str, asked: Asked) -> _Header | BadFile:
    max_pixels = asked.max_pixels
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            return BadFile(printable(path), "not a regular file")
        if asked.channels != RGB:
            return _read_tiff_header(path, asked)
        with Image.open(path, formats=decode.PILLOW_FORMATS) as image:
            if decode.needs_tifffile(image):
                return _read_tiff_header(path, asked)
            return _check_header(path, image, max_pixels)
    except UnidentifiedImageError:
        return _read_tiff_header(path, asked)
    except Image.DecompressionBombError:
        return BadFile(printable(path), _too_large(max_pixels))
    except OSError as error:
        return BadFile(printable(path), error.strerror or f"a broken header: {first_line(error)}")
    except Exception as error:  # a broken header makes Pillow raise all sorts
        return BadFile(printable(path), f"a broken header: {first_line(error)}")


def _read_tiff_header(path: str, asked: Asked) -> _Header | BadFile:
    """Read the header of a TIFF that Pillow does not know, or of other channels than RGB."""
    with open(path, "rb") as file:
        start = file.read(32)
    if start[:4] not in _TIFF:
        told = what_it_is(start)
        if asked.channels != RGB:
            told = f"not a TIFF; only TIFF files can have {asked.channels} channels"
        return BadFile(printable(path), told)
    if importlib.util.find_spec("tifffile") is None:
        return BadFile(printable(path), "a TIFF that needs `pip install 'kerastl[tiff]'`")
    try:
        header = decode.read_tiff_header(path)
    except Exception as error:  # of a damaged header
        return BadFile(printable(path), f"a broken header: {first_line(error)}")
    if math.prod(header.shape) * header.dtype.itemsize > _BYTES_A_PIXEL * asked.max_pixels:
        return BadFile(printable(path), f"{header.shape}: {_too_large(asked.max_pixels)}")
    if header.axis_of(asked.channels) is None and (len(header.shape), asked.channels) != (2, 1):
        return BadFile(
            printable(path),
            f"a TIFF with {header.channels} channels, not {asked.channels}: pass "
            f"`channels={header.channels}` if all have them",
        )
    return _Header(path, "TIFF", True, header.dtype != np.uint8, ())


def _check_header(path: str, image: Image.Image, max_pixels: int) -> _Header | BadFile:
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    if image.width * image.height > max_pixels:
        return BadFile(printable(path), f"{image.width} x {image.height}: {_too_large(max_pixels)}")
    num_bytes = os.stat(path).st_size
    if num_bytes > _BYTES_BESIDE + _BYTES_A_PIXEL * image.width * image.height:
        return BadFile(
            printable(path), f"{num_bytes:,} bytes for {image.width} x {image.height} pixels"
        )
    if kind == "WEBP" and animated:
        return BadFile(printable(path), "an animated WebP: save one of its frames as PNG")
    rotated = _is_rotated(image)
    needs_pillow = kind not in _ENDINGS or (
        kind in ("WEBP", "BMP") and (image.mode == "RGBA" or rotated)
    )
    extra = kind == "TIFF" and decode.has_unread_channels(image)
    remarks = _remarks(path, kind, animated=animated, rotated=rotated, extra_channels=extra)
    return _Header(path, kind, needs_pillow, decode.is_deep(image), remarks)


def _is_rotated(image: Image.Image) -> bool:
    if image.format == "PNG" and "exif" not in image.info:
        return False  # where Pillow would decode all of the image to look behind its pixels
    with suppress(Exception):  # broken EXIF is no reason to refuse the pixels
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    return False


def _remarks(
    path: str, kind: str, *, animated: bool, rotated: bool, extra_channels: bool
) -> tuple[str, ...]:
    ending = os.path.splitext(path)[1].lower()
    misnamed = ending not in _ENDINGS.get(kind, (ending,))
    remarks = {
        f"{kind}, although the suffix is {ending}": misnamed,
        "animated; only the first frame is used": animated and kind != "TIFF",
        (
            "several pages; only the first page is used (if the pages are channels, pass "
            "`channels`)"
        ): (animated and kind == "TIFF"),
        "more than 3 channels; only the first 3 are used (pass `channels` to use all)": (
            extra_channels
        ),
        "rotated by the EXIF orientation": rotated,
    }
    return tuple(remark for remark, holds in remarks.items() if holds)


def _measure_alone(header: _Header, asked: Asked) -> tuple[bool, list[int]]:
    """Decode a file with TensorFlow, or with Pillow; return whether it was Pillow, and measures."""
    # In other formats Pillow lets damage pass that TensorFlow sees.
    helped = (tf.errors.OpError,) if header.format in ("BMP", "WEBP") else ()
    if not header.needs_pillow:
        with suppress(*helped):
            return False, _measure([header.path], header.format == "JPEG", asked.bit_depth)[0]
    data = tf.io.read_file(os.fsencode(header.path))
    pixels = decode.pillow_pixels(data.numpy(), asked.bit_depth, asked.channels)
    return True, _measures(data, tf.constant(pixels)).numpy().tolist()


def _measure(paths: Sequence[str], jpeg_only: bool, bit_depth: int | None) -> list[list[int]]:
    with _tracing:  # or every thread would trace for itself
        measure = _traced(jpeg_only, None if jpeg_only else bit_depth)
    return list(measure(tf.constant([os.fsencode(p) for p in paths])).numpy().tolist())


@functools.cache
def _traced(jpeg_only: bool, bit_depth: int | None) -> Any:
    """Return the graph function from paths `(n,)` to the measures of each."""

    def measure(path: Any) -> Any:
        data = tf.io.read_file(path)
        image = decode.decode_image(data, jpeg_only=jpeg_only, bit_depth=bit_depth)
        return _measures(data, image)

    def measure_all(paths: Any) -> Any:
        row = tf.TensorSpec([3 + SIDE**2], tf.int64)
        with tf.device("CPU:0"):  # where the pipeline runs, too
            return tf.map_fn(measure, paths, parallel_iterations=1, fn_output_signature=row)

    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(measure_all, signature, autograph=False).get_concrete_function()


def _measures(data: Any, image: Any) -> Any:
    """Return height, width, hash, and the thumbnail in gray, as int64 `(n,)`."""
    shape = tf.shape(image, tf.int64)
    row = tf.stack([shape[0], shape[1], content_hash(data)])
    levels = tf.cast(gray_thumbnails(image), tf.int64)
    return tf.concat([row, tf.reshape(levels, [-1])], 0)


def gray_thumbnails(images: Any) -> Any:
    """Return the gray levels `(..., 9, 9)` of images `(..., height, width, channels)`, rounded."""
    small = tf.image.resize(images, (SIDE, SIDE), method="area")
    if images.shape[-1] != RGB:
        return tf.round(tf.reduce_mean(small, -1))
    return tf.round(tf.image.rgb_to_grayscale(small))[..., 0]


_tracing = threading.Lock()


def what_it_is(data: bytes) -> str:
    """Say what the bytes of a file that is no known image seem to be."""
    start = data[:32].lstrip()
    if not start:
        return "an empty file"
    if start.startswith(b"<"):
        return "HTML or XML, not an image"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the file with `git lfs pull`"
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "HEIC: convert it to JPEG or PNG"
    return "not a known image format"


def _too_large(max_pixels: int) -> str:
    return f"more pixels than max_pixels={max_pixels:,}"


def first_line(error: Exception) -> str:
    """Return the message of an error in one line, without TensorFlow's nodes and stacks."""
    text = re.sub(r"\{\{function_node [^}]*\}\}|\[Op:\w+\]", "", str(error))
    lines = text.split("[[{{node")[0].strip().splitlines() or [type(error).__name__]
    return lines[-1 if "[[{{node" in text else 0].strip()
