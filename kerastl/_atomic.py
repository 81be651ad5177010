"""Writes a file so that it is there as a whole or not at all."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerastl.errors import ExportError

PREFIX = ".writing-"
"""The names of unfinished files start with this; a process that is killed leaves its own."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of an empty file in the same folder, which takes the place of `path`.

    A kill at any moment leaves either what was at `path` before, or the whole new file. The
    temporary name has the same suffix, which tells Keras the format.

    Args:
        path: the file to write; its folder must exist.

    Raises:
        ExportError: the file cannot be written; what was at `path` is still there.
    """
    path = Path(path)
    partial = path.with_name(f"{PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        # A name that exists already, or is a link, is refused: it is not ours.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(partial, flags, 0o666))
        try:
            yield partial
            flush_to_disk(partial)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ExportError(
            f"Cannot write {path}: {error}. Free some disk space, or choose another folder."
        ) from error
    with contextlib.suppress(OSError):  # so that the new name survives a power failure
        flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before anything else is written."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file of bytes, as a whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file, as a whole or not at all; names of files that are no UTF-8 survive."""
    atomic_write_bytes(path, text.encode("utf-8", "surrogateescape"))


def atomic_write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write a value as JSON; NaN and infinity are refused, for JSON has no such numbers.

    Raises:
        ValueError: a number is not finite.
    """
    atomic_write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of killed processes, in a folder that nobody else writes to."""
    for path in folder.rglob(f"{PREFIX}*"):
        if path.is_file():
            path.unlink(missing_ok=True)
