"""What a scan says about one file."""

import os
from typing import NamedTuple


class FileReport(NamedTuple):
    """What the scan found out about a readable image."""

    path: str
    format: str
    height: int
    width: int
    content: int
    """A hash of the bytes of the file, as `examine.content_hash` computes it."""
    needs_pillow: bool
    """Whether Pillow reads the file, TensorFlow being unable to."""
    remarks: tuple[str, ...]
    """What is unusual about it, in words."""
    sha256: str = ""
    """Of the bytes of the file in hexadecimal digits; empty unless prints were asked for."""
    look: str = ""
    """128 bits in hexadecimal digits that alike pictures share, as `looks.look_of` computes them;
    empty unless prints were asked for, and for a picture of a single colour."""


def printable(path: str) -> str:
    """Return a path that can be printed and sent, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
