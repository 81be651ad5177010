"""What a scan says about one file."""

import os
from typing import NamedTuple

LEAST_SIDE = 32
"""Pixels of the smallest images that a network of `keras.applications` takes."""


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
    """128 bits in hexadecimal digits that alike pictures share, as `difference_hash` returns them;
    empty unless prints were asked for, and for a picture of a single colour."""

    def all_remarks(self) -> list[str]:
        """Return what is unusual about the image, what it means for training included."""
        remarks = list(self.remarks)
        if self.needs_pillow:
            remarks.append(f"{self.format} that an exported model cannot decode; convert to PNG")
        if min(self.height, self.width) < LEAST_SIDE:
            remarks.append(f"a side below {LEAST_SIDE} pixels, less than any network was made for")
        return remarks


def printable(path: str) -> str:
    """Return a path that can be printed and sent, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
