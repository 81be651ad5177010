"""One entry of the store on disk, either complete or absent.

An entry is a folder with a raw little-endian file for each array and an `entry.json` that gives
shape, dtype and SHA-256 of each. It is written beside its place and renamed when it is complete.
"""

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from kerastl._atomic import flush_to_disk
from kerastl._hashing import sha256_of_file

RECORD = "entry.json"
FORMAT = 1
DTYPES = ("float16", "float32")
TEMPORARY = ".tmp-"
LARGEST_FLOAT16 = 65504.0
_CHUNK = 2**24  # bytes read at a time
_DAY = 24 * 3600

Arrays = list[np.ndarray]


class DamagedEntryError(Exception):
    """An entry is not what was written; the store removes it."""


class EntryWriter:
    """Writes an entry batch by batch to a temporary folder, and moves it when it is complete."""

    def __init__(self, folder: Path, dtype: str):
        self._folder = folder
        self._dtype = dtype
        self._temporary = temporary_sibling(folder)
        self._temporary.mkdir(parents=True)
        self._columns: list[_Column] = []
        self._rows = 0

    def append(self, outputs: Sequence[np.ndarray]) -> None:
        """Write one batch of each array."""
        if not self._columns:
            self._columns = [
                _Column(self._temporary / f"{index}.bin", output.shape[1:], self._dtype)
                for index, output in enumerate(outputs)
            ]
        for column, output in zip(self._columns, outputs, strict=True):
            column.append(output)
        self._rows += len(outputs[0])

    def commit(self, about: Mapping[str, object]) -> bool:
        """Put the entry in its place, unless there is one already; return whether it did."""
        arrays = [column.finish() for column in self._columns]
        record = {"format": FORMAT, "count": self._rows, "arrays": arrays, **about}
        with open(self._temporary / RECORD, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
        flush_to_disk(self._temporary / RECORD)
        flush_to_disk(self._temporary)
        try:
            os.rename(self._temporary, self._folder)
        except OSError:
            if not (self._folder / RECORD).is_file():
                raise
            self.discard()  # another process was first
            return False
        flush_to_disk(self._folder.parent)
        return True

    def read_back(self) -> Arrays:
        """Return the batches that were written whole."""
        return [column.read(self._rows) for column in self._columns]

    def discard(self) -> None:
        """Remove what was written."""
        for column in self._columns:
            column.close()
        shutil.rmtree(self._temporary, ignore_errors=True)


class _Column:
    """The file of one array."""

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: str):
        self._path = path
        self._row_shape = tuple(int(side) for side in row_shape)
        self._dtype = np.dtype(dtype)
        self._file: BinaryIO = open(path, "w+b", buffering=0)
        self._digest = hashlib.sha256()
        self._rows = 0

    def append(self, values: np.ndarray) -> None:
        if self._dtype == np.float16 and not fits_float16(values):
            self._widen()
        data = memoryview(values.astype(self._dtype).tobytes())
        self._digest.update(data)
        while data:
            data = data[self._file.write(data) :]
        self._rows += len(values)

    def _widen(self) -> None:
        """Turn what was written into bfloat16, which takes as many bytes."""
        self._dtype = np.dtype(ml_dtypes.bfloat16)
        self._digest = hashlib.sha256()
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            wide = np.frombuffer(data, np.float16).astype(self._dtype).tobytes()
            self._digest.update(wide)
            self._file.seek(-len(data), os.SEEK_CUR)
            self._file.write(wide)

    def finish(self) -> dict[str, object]:
        self._file.close()
        flush_to_disk(self._path)
        return {
            "file": self._path.name,
            "shape": [self._rows, *self._row_shape],
            "dtype": self._dtype.name,
            "sha256": self._digest.hexdigest(),
        }

    def read(self, rows: int) -> np.ndarray:
        count = rows * int(np.prod(self._row_shape, dtype=np.int64))
        raw = np.fromfile(self._path, np.uint8, count * self._dtype.itemsize)
        return raw.view(self._dtype).reshape(rows, *self._row_shape)

    def close(self) -> None:
        self._file.close()


def fits_float16(values: np.ndarray) -> bool:
    """Return whether the finite ones of `values` are in the range of float16."""
    magnitudes = np.abs(values)
    if magnitudes.max(initial=0) <= LARGEST_FLOAT16:  # not so with a NaN either
        return True
    return bool((magnitudes[np.isfinite(magnitudes)] <= LARGEST_FLOAT16).all())


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what an entry says of itself, or None when there is no entry.

    Raises:
        DamagedEntryError: There is a folder, but no record of ours in it.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not folder.is_dir():
            return None
        raise DamagedEntryError(f"it has no {RECORD}") from None
    except ValueError as error:
        raise DamagedEntryError(f"its {RECORD} is not JSON") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DamagedEntryError(f"its {RECORD} has another format")
    return record


def open_arrays(folder: Path, record: Mapping[str, Any], *, verify: bool) -> Arrays:
    """Return the arrays of an entry as read-only memory maps.

    Raises:
        DamagedEntryError: A file is missing, or has not the size or (with `verify`) the hash.
    """
    arrays = []
    for column in record["arrays"]:
        path, shape = folder / column["file"], tuple(column["shape"])
        dtype = np.dtype(getattr(ml_dtypes, column["dtype"], column["dtype"]))
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not path.is_file() or path.stat().st_size != size:
            raise DamagedEntryError(f"its file {path.name} does not have {size} bytes")
        if verify and sha256_of_file(path) != column["sha256"]:
            raise DamagedEntryError(f"the checksum of its file {path.name} differs")
        raw = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
        arrays.append(raw.view(dtype).reshape(shape))
    return arrays


def drop_pages(array: np.ndarray) -> None:
    """Let go of the memory that reading a memory map took; it is read again when needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def remove_entry(folder: Path) -> None:
    """Remove an entry; a kill in between leaves nothing that looks like one."""
    aside = temporary_sibling(folder)
    with contextlib.suppress(OSError):  # another process was first
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def temporary_sibling(folder: Path) -> Path:
    """Return a new name next to a folder, with the process id."""
    return folder.parent / f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}-{socket.gethostname()}"


def remove_stale(directory: Path) -> None:
    """Remove what killed processes left: of this host by their ids, of others after a day."""
    for path in directory.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError, ValueError):
            pid, _, host = path.name.removeprefix(TEMPORARY).split("-", 2)
            if host == socket.gethostname() and os.name == "posix":
                stale = not _is_alive(int(pid))
            else:
                stale = time.time() - path.stat().st_mtime > _DAY
            if stale:
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
