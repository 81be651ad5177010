"""Stores activations on disk, shared by all processes."""

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from kerastl._cache import CACHE_DIR, cache_directory
from kerastl._checks import check_choice, check_int
from kerastl.errors import KerastlError
from kerastl.frozen.entry import (
    DTYPES,
    RECORD,
    Arrays,
    DamagedEntryError,
    EntryWriter,
    fits_float16,
    open_arrays,
    read_record,
    remove_entry,
    remove_stale,
)

MAX_BYTES = 20 * 10**9
MEMORY_BYTES = 2**30
"""The most that is kept in memory when the disk cannot have it."""


class Stored(NamedTuple):
    """The content of an entry, and the seconds to compute it."""

    arrays: Arrays
    seconds: float


class EntryInfo(NamedTuple):
    """An entry in a listing; `last_used` in seconds since 1970."""

    key: str
    description: str
    num_bytes: int
    last_used: float


class ActivationStore:
    """Arrays by key, in a folder of bounded size that processes share.

    An entry is whole or not there, whenever a process is killed. One that is damaged is found by
    its checksum when a process first opens it, and removed. The entries that were not used for
    the longest time make room for new ones.

    Args:
        directory: The folder. Default: `cache_directory()`.
        max_bytes: Most that all entries may take. Default: 20 GB, or a fifth of what the disk
            has free (its own entries counted as free), whichever is less.

    Example:
        >>> store = ActivationStore()
        >>> embeddings = kerastl.extract_embeddings(model, data.train, store=store)
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, max_bytes: int | None = None
    ):
        if max_bytes is not None:
            check_int("max_bytes", max_bytes, 0)
        self.directory = cache_directory() if directory is None else Path(directory)
        self._entries = self.directory / "activations"
        self._max_bytes = max_bytes

    def __contains__(self, key: str) -> bool:
        return (self._entries / key / RECORD).is_file()

    def get(self, key: str) -> Stored | None:
        """Return an entry as read-only memory maps, or None; a damaged one is removed."""
        folder = self._entries / key
        try:
            record = read_record(folder)
            if record is None:
                return None
            arrays = open_arrays(folder, record, verify=_identity(folder) not in _verified)
        except (DamagedEntryError, KeyError, TypeError) as error:
            warnings.warn(
                f"Stored activations are damaged ({error}), so kerastl computes them again. "
                f"Removed: {folder}",
                stacklevel=2,
            )
            remove_entry(folder)
            return None
        except OSError:  # evicted by another process meanwhile, or not ours to read
            return None
        _verified.add(_identity(folder))
        with contextlib.suppress(OSError):
            os.utime(folder / RECORD)
        return Stored(arrays, float(record.get("seconds", 0)))

    def entries(self) -> list[EntryInfo]:
        """Return all entries, the one that was not used for the longest time first."""
        found = []
        for path in self._entries.glob(f"[!.]*/{RECORD}"):
            with contextlib.suppress(OSError, DamagedEntryError):
                record = read_record(path.parent) or {}
                size = sum(file.stat().st_size for file in path.parent.iterdir())
                about = str(record.get("description", ""))
                found.append(EntryInfo(path.parent.name, about, size, path.stat().st_mtime))
        return sorted(found, key=lambda entry: entry.last_used)

    def size(self) -> int:
        """Return the bytes that all entries take."""
        return sum(entry.num_bytes for entry in self.entries())

    def remove(self, key: str) -> None:
        """Remove an entry, if there is one."""
        remove_entry(self._entries / key)

    def clear(self) -> int:
        """Remove all entries; return the bytes that they took."""
        size = self.size()
        for path in self._entries.glob("[!.]*"):
            remove_entry(path)
        remove_stale(self._entries)
        return size

    def bound(self) -> int:
        """Return the most bytes that all entries may take."""
        if self._max_bytes is not None:
            return self._max_bytes
        return min(MAX_BYTES, (self._free_bytes() + self.size()) // 5)

    def _free_bytes(self) -> int:
        self._entries.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._entries).free

    def _make_room(self, num_bytes: int) -> str | None:
        """Evict until an entry fits; return why it cannot, or None."""
        bound = self.bound()
        if num_bytes > bound:
            return f"the store can use {_megabytes(bound)}"
        remove_stale(self._entries)
        excess = self.size() + num_bytes - bound
        for entry in self.entries():
            if excess <= 0:
                break
            remove_entry(self._entries / entry.key)
            excess -= entry.num_bytes
        free = self._free_bytes()
        return f"the disk has {_megabytes(free)} free" if num_bytes > free else None


@dataclass(eq=False)
class Recorder:
    """Takes arrays batch by batch and gives them back whole, from the disk when it can have them.

    Args:
        store: Where to store them, or None to keep them in memory.
        key: Of the entry.
        count: How many examples there will be.
        dtype: `"float16"` or `"float32"`.
        description: For listings.
        memory_bytes: The most to keep in memory when they are not stored; None for any number.
        shared_by: How many recorders are filled at once, which share the time that it takes.

    Attributes:
        is_stored: Whether `finish` found them on the disk.
    """

    store: ActivationStore | None
    key: str
    count: int
    _: KW_ONLY
    dtype: str = "float16"
    description: str = ""
    memory_bytes: int | None = MEMORY_BYTES
    shared_by: int = 1

    def __post_init__(self) -> None:
        check_int("count", self.count, 1)
        check_choice("dtype", self.dtype, DTYPES)
        self._start = time.monotonic()
        self._writer: EntryWriter | None = None
        self._memory: _Memory | None = None
        self._rows = 0
        self.is_stored = False

    def append(self, outputs: Sequence[np.ndarray]) -> None:
        """Take one batch: a float32 array `(batch, ...)` for each array of the entry."""
        if not self._rows:
            self._begin(outputs)
        self._rows += len(outputs[0])
        if self._rows > self.count:
            raise KerastlError(_wrong_count(self.count, f"at least {self._rows}"))
        if self._writer is not None:
            try:
                self._writer.append(outputs)
                return
            except OSError as error:
                self._move_to_memory(self._writer, str(error))
        if self._memory is not None:
            self._memory.append(outputs)

    def finish(self) -> Arrays | None:
        """Return the arrays; None when neither the disk nor the memory can have them."""
        if self._rows != self.count:
            raise KerastlError(_wrong_count(self.count, str(self._rows)))
        if self._writer is not None:
            try:
                return self._commit(self._writer)
            except OSError as error:
                self._move_to_memory(self._writer, str(error))
        return None if self._memory is None else self._memory.arrays

    def close(self) -> None:
        """Remove what was written and not finished."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None

    def _begin(self, outputs: Sequence[np.ndarray]) -> None:
        row = sum(output[:1].size for output in outputs) * np.dtype(self.dtype).itemsize
        self._num_bytes = self.count * row
        if self.store is None:
            self._keep_in_memory()
            return
        try:
            reason = self.store._make_room(self._num_bytes)
            if reason is None:
                self._writer = EntryWriter(self.store._entries / self.key, self.dtype)
        except OSError as error:
            reason = str(error)
        if reason is not None:
            self._keep_in_memory(reason)

    def _commit(self, writer: EntryWriter) -> Arrays:
        seconds = round((time.monotonic() - self._start) / self.shared_by, 3)
        about = {"description": self.description, "created": time.time(), "seconds": seconds}
        ours = writer.commit(about)
        self._writer = None
        assert self.store is not None  # noqa: S101  # there is no writer without a store
        if ours:  # what this process has just written needs no check
            with contextlib.suppress(OSError):
                _verified.add(_identity(self.store._entries / self.key))
        stored = self.store.get(self.key)
        if stored is None:
            raise KerastlError(
                "kerastl cannot read the activations that it stored in "
                f"{str(self.store.directory)!r}. Set {CACHE_DIR} to another folder, or pass "
                "`store=None`."
            )
        self.is_stored = True
        return stored.arrays

    def _move_to_memory(self, writer: EntryWriter, reason: str) -> None:
        self._writer = None
        self._keep_in_memory(reason)
        if self._memory is not None and (written := writer.read_back()):
            self._memory.append(written)
        writer.discard()

    def _keep_in_memory(self, reason: str | None = None) -> None:
        """Keep the arrays in memory if they fit; warn where there is a reason against the disk."""
        instead = "kerastl computes them again when it needs them"
        if self.memory_bytes is None or self._num_bytes <= self.memory_bytes:
            self._memory = _Memory(self.count, self.dtype)
            instead = "kerastl keeps them in memory"
        if reason is not None:
            warnings.warn(
                f"Activations of {_megabytes(self._num_bytes)} are not stored: {reason}. "
                f"{instead}. Free some disk space, run `kerastl cache --clear`, or set "
                f"{CACHE_DIR} to another folder.",
                stacklevel=4,
            )


class _Memory:
    """Arrays in memory, filled batch by batch."""

    def __init__(self, count: int, dtype: str):
        self._count, self._dtype = count, np.dtype(dtype)
        self.arrays: Arrays = []
        self._rows = 0

    def append(self, outputs: Sequence[np.ndarray]) -> None:
        if not self.arrays:
            shapes = [(self._count, *output.shape[1:]) for output in outputs]
            self.arrays = [np.empty(shape, self._dtype) for shape in shapes]
        end = self._rows + len(outputs[0])
        for index, output in enumerate(outputs):
            if self.arrays[index].dtype == np.float16 and not fits_float16(output):
                self.arrays[index] = self.arrays[index].astype(ml_dtypes.bfloat16)
            self.arrays[index][self._rows : end] = output
        self._rows = end


# Entries that this process has checked: path and inode.
_verified: set[tuple[str, int]] = set()


def _identity(folder: Path) -> tuple[str, int]:
    return str(folder), (folder / RECORD).stat().st_ino


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _wrong_count(expected: int, received: Any) -> str:
    return (
        f"The number of activations must be {expected}, as announced. Received: {received}. "
        "Pass the number of examples as `count`."
    )
