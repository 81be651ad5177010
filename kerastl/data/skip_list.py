"""The list of skipped files, which a scan writes and `load_data` reads."""

import os
from collections.abc import Mapping

from kerastl._atomic import atomic_write_text
from kerastl.data.classes import normal
from kerastl.data.escapes import escape, unescape
from kerastl.errors import DataError

NAME = "kerastl-skip.txt"
"""The list lies under this name in the folder of the images, or of their table."""
_HEADER = "# Left out by load_data: a path relative to this folder, a tab and the reason."


def read_skip_list(folder: str) -> dict[str, str]:
    r"""Read the list of the folder of the images, or of their table.

    A line is a path relative to the folder, and after a tab the reason. Empty lines and those that
    begin with `#` say nothing. In a path a backslash stands as two, a tab as `\t`, a newline as
    `\n`, and a `#` that begins it as `\#`.

    Returns:
        The reasons by normal relative path in the Unicode form NFC; empty without a list.

    Raises:
        DataError: The list cannot be read, or a line of it cannot be meant.
    """
    path = os.path.join(folder, NAME)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(
            f"Cannot read the skip list {path!r}: {error.strerror}. Repair or remove it."
        ) from None
    wanted = [(n, line) for n, line in enumerate(lines, 1) if line and not line.startswith("#")]
    return dict(_parse(line, number, path) for number, line in wanted)


def write_skip_list(folder: str, reasons: Mapping[str, str]) -> str:
    """Write why each file of a folder is left out, by its path there, over the list before.

    Returns:
        The path of the list.
    """
    path = os.path.join(folder, NAME)
    lines = [_HEADER]
    for name, reason in sorted(reasons.items()):
        written = escape(os.path.normpath(name))
        mark = "\\" if written.startswith("#") else ""
        lines.append(f"{mark}{written}\t{escape(reason)}")
    atomic_write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def _parse(line: str, number: int, path: str) -> tuple[str, str]:
    name, _, reason = line.partition("\t")
    text = name.removeprefix("\\") if name.startswith("\\#") else name
    try:
        return normal(os.path.normpath(unescape(text))), unescape(reason.strip())
    except ValueError as error:
        raise DataError(
            f"Line {number} of {path!r} is wrong: {error}. Write a backslash in a name as two."
        ) from None
