"""The result of a scan for one file."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from kerastl.data.options import RGB

LEAST_SIDE = 32
"""Pixels of the smallest images that a network of `keras.applications` takes."""

_MOST = 0.95  # of the pictures of 16 bits hold no value above the one that is told


class FileReport(NamedTuple):
    """What the scan found out about a readable image."""

    path: str
    format: str
    height: int
    width: int
    content: int
    """A hash of the bytes of the file, as `examine.content_hash` computes it."""
    needs_pillow: bool
    """Whether Pillow or tifffile reads the file, TensorFlow being unable to."""
    remarks: tuple[str, ...]
    """What is unusual about it, in words."""
    picture: str = ""
    """As `near_duplicates.Print` has it, and the next."""
    look: str = ""
    peak: int = 0
    """The largest value of a picture of more than 8 bits; 0 of others."""
    sha256: str = ""
    """Of the bytes of the file in hexadecimal digits; empty unless asked for."""
    channels: int = RGB

    def all_remarks(self) -> list[str]:
        """Return what is unusual about the image, what it means for training included."""
        remarks = list(self.remarks)
        if self.channels != RGB:
            remarks.append(
                f"{self.format} of {self.channels} channels; an exported model accepts such "
                "images only as pixel arrays"
            )
        elif self.needs_pillow:
            remarks.append(
                f"{self.format}; an exported model cannot decode it, so convert it to PNG"
            )
        if min(self.height, self.width) < LEAST_SIDE:
            remarks.append(
                f"a side below {LEAST_SIDE} pixels, which is too small for every network"
            )
        return remarks


def printable(path: str) -> str:
    """Return a path that can be printed and sent, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def csv_cell(value: Any) -> Any:
    """Return a value of a CSV file such that no spreadsheet runs a name as a formula.

    Text that begins as a formula, and is no number, gets an apostrophe in front
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    if not isinstance(value, str) or value[:1] not in tuple("=+-@\t\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def range_warnings(reports: Sequence[FileReport], bit_depth: int | None) -> list[str]:
    """Warn of pictures of more than 8 bits that do not fill them, or that go beyond."""
    deep = [report for report in reports if report.peak]
    if not deep:
        return []
    if bit_depth is not None:
        over = [printable(report.path) for report in deep if report.peak > 2**bit_depth - 1]
        told = (
            f"{len(over)} images have values above {2**bit_depth - 1:,}, which are clipped: "
            f"pass a larger `bit_depth` (such as {', '.join(over[:3])})"
        )
        return [told] if over else []
    usual = sorted(report.peak for report in deep)[int(_MOST * (len(deep) - 1))]
    if usual >= 2**15:
        return []
    low = [printable(report.path) for report in deep if report.peak <= usual]
    return [
        f"{len(low)} of {len(deep)} 16-bit images have no value above {usual:,}, of 65,535, "
        f"so they are nearly black: pass `bit_depth={max(usual.bit_length(), 1)}` if that is "
        f"their range (such as {', '.join(low[:3])})"
    ]
