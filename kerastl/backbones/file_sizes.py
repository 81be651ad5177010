"""Rejects model and weight files whose declared sizes are larger than the file."""

import os
import zipfile
from pathlib import Path
from typing import Any

from kerastl._reading import LARGEST
from kerastl.errors import WeightsError

MOST_MEMBERS = 100_000  # of an archive, datasets of a weight file
MOST_FOLD = 20  # as large as it is on the disk an archive may become when it is read
_SMALL = 2**26  # bytes that any file may become


def check_keras_file(file: Path) -> None:
    """Raise unless the sizes in the directory of a `.keras` archive are those of a model.

    Raises:
        WeightsError: it is too large, or is no such archive.
    """
    try:
        with zipfile.ZipFile(file, "r") as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"Cannot read {file}: {error} Restore it from a copy, or train it again."
        ) from error
    for member in members:
        if member.filename.endswith(".json") and member.file_size > LARGEST:
            _refuse(file, f"{member.filename!a:.60} in it", member.file_size, LARGEST)
    _check_sum(file, len(members), sum(member.file_size for member in members))


def check_weight_file(file: Path) -> None:
    """Raise unless the arrays of an HDF5 file are about as large as the file.

    Raises:
        WeightsError: they are larger, or lie in other files.
        OSError: it is no HDF5.
    """
    import h5py

    num_bytes = num_datasets = 0

    def count(name: str, found: Any) -> str | None:
        nonlocal num_bytes, num_datasets
        if isinstance(found, h5py.Dataset):
            num_bytes += found.size * found.dtype.itemsize if found.shape is not None else 0
            num_datasets += 1
            if found.external or found.is_virtual:
                return name
        return None

    with h5py.File(file, "r") as opened:
        elsewhere = opened.visititems(count)
    if elsewhere is not None:
        raise WeightsError(
            f"{file} keeps {elsewhere!a:.60} in another file, which kerastl does not read. Use a "
            "file that contains all weights."
        )
    _check_sum(file, num_datasets, num_bytes)


def _check_sum(file: Path, count: int, num_bytes: int) -> None:
    on_disk = os.stat(file).st_blocks * 512  # of a sparse file less than its length
    allowed = max(_SMALL, MOST_FOLD * on_disk)
    if num_bytes > allowed:
        _refuse(file, "what it holds", num_bytes, allowed)
    if count > MOST_MEMBERS:
        raise WeightsError(
            f"{file} holds {count:,} arrays or files, which is too many for a model. Use another "
            "copy of the file."
        )


def _refuse(file: Path, what: str, num_bytes: int, allowed: int) -> None:
    raise WeightsError(
        f"kerastl does not read {file}: {what} needs {num_bytes:,} bytes, more than {allowed:,}. "
        "The file is damaged, or made to fill the memory. Use another copy of it."
    )
