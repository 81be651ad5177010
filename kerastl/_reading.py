"""Reads untrusted files: only regular files of a bounded size, not through links."""

import contextlib
import csv
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerastl.errors import DataError

LARGEST = 64 * 2**20  # bytes of a file that is read into the memory as a whole


@contextlib.contextmanager
def reading(what: str | Path, advice: str) -> Iterator[None]:
    """Say what could not be read, and what to do, in place of the errors of files and parsers."""
    try:
        yield
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # brackets in brackets
        raise DataError(f"Cannot read {what}: {str(error).rstrip('.')}. {advice}") from error


def read_regular(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: the file; links in the folders above it are followed, a link in its place is not.
        largest: bytes that it may have.

    Raises:
        OSError: there is no such file, it is a link or no regular file, or it is too large.
    """
    # Without O_NONBLOCK, to open a pipe would wait for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if Path(path).is_symlink():
        raise OSError(f"{path} is a link, and kerastl does not follow links")
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > largest:
            raise OSError(f"{path} has {found.st_size:,} bytes, more than {largest:,}")
        return file.read(largest)


def read_text(path: str | os.PathLike[str], largest: int = LARGEST) -> str:
    """Return a UTF-8 text, as `read_regular` reads it, with line ends as `open` gives them."""
    return read_regular(path, largest).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; NaN and infinity are refused, for JSON has no such numbers.

    Raises:
        ValueError: it is no JSON.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not a JSON number")

    return json.loads(text, parse_constant=refuse)
