"""Checks arrays of images and labels."""

import math
import os
import zipfile
from collections.abc import Sequence

import numpy as np

from kerastl._task import Task
from kerastl.data.loaded import SourceParts, join_names
from kerastl.data.options import AS_ALWAYS, MOST_BITS, PixelRules
from kerastl.data.pixels import ArraySource
from kerastl.data.split import Split
from kerastl.errors import DataError

_NAMES = {"train": "train", "validation": "val", "test": "test"}
_LAYOUTS = (
    {part: (f"x_{name}", f"y_{name}") for part, name in _NAMES.items()},
    {part: (f"{name}_images", f"{name}_labels") for part, name in _NAMES.items()},
    {"train": ("x", "y")},
    {"train": ("images", "labels")},
)
_LARGE, _MOST_RATIO = 2**30, 200  # bytes unpacked, and times the packed: more is a bomb
_CHUNK = 1024  # images that are checked at a time, so that memory stays bounded


def read_npz(
    path: str, class_names: Sequence[str] | None, task: Task, rules: PixelRules = AS_ALWAYS
) -> SourceParts:
    """Read an `.npz` file with the names that Keras, MedMNIST or plain use gives to arrays."""
    try:
        with np.load(path, allow_pickle=False) as file:
            _check_archive(file.zip, path)
            layout = _find_layout(file.files, path)
            arrays = {part: (file[x], file[y]) for part, (x, y) in layout.items()}
    except DataError:
        raise
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"Cannot read {path!r} as an .npz file of plain arrays: {error}. Write it again "
            "with `np.savez`, from arrays of numbers."
        ) from None
    return read_arrays(arrays, class_names, task, rules)


def read_arrays(
    arrays: dict[str, tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str] | None,
    task: Task,
    rules: PixelRules = AS_ALWAYS,
) -> SourceParts:
    """Make splits of the images and labels of each part."""
    images = {part: check_images(np.asarray(x), part, rules) for part, (x, _) in arrays.items()}
    found = {part: np.asarray(y) for part, (_, y) in arrays.items()}
    for part, x in images.items():
        if found[part].shape[:1] != (len(x),):
            raise DataError(
                f"Every image needs one label. Received: {len(x)} images and "
                f"labels of shape {found[part].shape} in {part}. Pass arrays of equal length."
            )
    labels, names = task.array_labels(found, class_names)
    sources = {part: ArraySource(x, np.arange(len(x)), rules) for part, x in images.items()}
    parts = {
        part: Split(source, labels[part], len(names), task) for part, source in sources.items()
    }
    return SourceParts(parts, names)


def check_images(images: np.ndarray, part: str, rules: PixelRules = AS_ALWAYS) -> np.ndarray:
    """Return `images` when they are raw pixels 0 to 255 of a shape that is known."""
    channels = 1 if images.ndim == 3 else images.shape[-1]
    if images.ndim not in (3, 4) or not rules.fits(channels):
        raise DataError(
            "Images must have the shape (n, height, width) or (n, height, width, "
            f"{rules.channels_in_words}). Received: {images.shape} in {part}. Put the "
            "channels last and remove alpha, or pass `channels` if the channels are not "
            "RGB."
        )
    if 0 in images.shape or images.dtype.kind not in "uif":
        raise DataError(
            "Images must be a non-empty array of numbers. Received: shape "
            f"{images.shape}, dtype {images.dtype} in {part}. Pass uint8 pixels from 0 to 255."
        )
    if images.dtype != np.uint8:
        chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
        low, high = min(chunk.min() for chunk in chunks), max(chunk.max() for chunk in chunks)
        check_range(float(low), float(high), images.dtype.kind == "f", part, rules.bit_depth)
    return images


def check_range(
    low: float, high: float, is_float: bool, part: str, bit_depth: int | None = None
) -> None:
    """Raise unless pixels from `low` to `high` are on the 0-255 scale, or that of `bit_depth`."""
    received = f"Received: values from {low:g} to {high:g} in {part}."
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(
            f"Pixels must be finite. {received} Remove the images with NaN or infinity."
        )
    if bit_depth is not None and (low < 0 or high > 2**bit_depth - 1):
        raise DataError(
            f"Pixels must be from 0 to {2**bit_depth - 1:,} with bit_depth={bit_depth}. {received} "
            "Pass the `bit_depth` of the camera or scanner."
        )
    if bit_depth is not None:
        return
    if low < 0 or high > 255:
        bits = min(max(int(high).bit_length(), 9), MOST_BITS)
        scale = (
            f" If they come from a camera or scanner, pass `bit_depth={bits}`." if low >= 0 else ""
        )
        raise DataError(
            f"Pixels must be raw, from 0 to 255. {received} Remove your preprocessing: the "
            f"model contains its preprocessing.{scale}"
        )
    if is_float and high <= 1:
        raise DataError(
            f"Pixels must be raw, from 0 to 255. {received} Multiply them by 255, or pass "
            "`bit_depth=1`."
        )


def _check_archive(archive: zipfile.ZipFile, path: str) -> None:
    """Raise unless the arrays of a file fit into the memory, and are what their headers promise."""
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    ratio = unpacked / max(1, sum(member.compress_size for member in members))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if unpacked > memory or (unpacked > _LARGE and ratio > _MOST_RATIO):
        raise DataError(
            f"{path!r} unpacks to {unpacked:,} bytes, {ratio:,.0f} times its size, with "
            f"{memory:,} bytes of memory available. Pass image files, or a tf.data.Dataset."
        )
    for member in members:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} promises an array of {shape}")


def _find_layout(keys: Sequence[str], path: str) -> dict[str, tuple[str, str]]:
    for layout in _LAYOUTS:
        if set(layout["train"]) <= set(keys):
            return {part: pair for part, pair in layout.items() if set(pair) <= set(keys)}
    expected = "; ".join(", ".join(layout["train"]) for layout in _LAYOUTS)
    raise DataError(
        f"{path!r} must contain images and labels under one of these pairs of names: "
        f"{expected}. Received: {join_names(list(keys))}. Rename the arrays."
    )
