"""A manifest of SHA-256 sums, which detects changed bytes in images that still decode.

Its lines are those of `sha256sum`, so that `sha256sum --check` reads it too.
"""

import os
import re
from collections.abc import Mapping

from kerastl._atomic import atomic_write_text
from kerastl.data.classes import normal
from kerastl.data.escapes import escape, unescape
from kerastl.data.file_report import printable
from kerastl.errors import BadFile, DataError

_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_DAMAGED = "its SHA-256 differs from the manifest: the file was changed or damaged"
_ESCAPED = "\\\n\r"  # as sha256sum does, which leaves tabs alone


def write_manifest(path: str, sums: Mapping[str, str]) -> None:
    """Write the SHA-256, 64 hexadecimal digits, of each file by its path relative to the data."""
    lines = []
    for name, digest in sorted(sums.items()):
        written = escape(name, _ESCAPED)
        mark = "\\" if written != name else ""
        lines.append(f"{mark}{digest}  {written}\n")
    atomic_write_text(path, "".join(lines))


def read_manifest(path: str) -> dict[str, str]:
    """Read a manifest that `write_manifest` or `sha256sum` wrote.

    Returns:
        The sums by path.

    Raises:
        DataError: It cannot be read, or a line of it is no sum and path.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise DataError(f"Cannot read the manifest {path!r}: {error.strerror}.") from None
    return dict(_parse(line, number, path) for number, line in enumerate(lines, 1) if line)


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> list[BadFile]:
    """Return the files that differ from a manifest, with what is wrong with each.

    A name that the manifest has in another Unicode form alone, as macOS writes it, is that file.
    """
    spelt = {normal(name): name for name in expected.keys() - found.keys()}
    found = {
        name if name in expected else spelt.get(normal(name), name): digest
        for name, digest in found.items()
    }
    differing = {
        name: _DAMAGED for name in expected.keys() & found.keys() if expected[name] != found[name]
    }
    missing = dict.fromkeys(expected.keys() - found.keys(), "in the manifest, but not found")
    new = dict.fromkeys(found.keys() - expected.keys(), "not in the manifest")
    return [
        BadFile(printable(name), reason)
        for name, reason in sorted({**differing, **missing, **new}.items())
    ]


def is_damage(reason: str) -> bool:
    """Whether a reason of `compare` is that a file has other bytes than it had."""
    return reason == _DAMAGED


def _parse(line: str, number: int, path: str) -> tuple[str, str]:
    matched = _LINE.fullmatch(line)
    try:
        if matched:
            marked, digest, name = matched.groups()
            return os.path.normpath(unescape(name) if marked else name), digest
        problem = "it is not a SHA-256 and a path"
    except ValueError as error:
        problem = str(error)
    raise DataError(
        f"Line {number} of the manifest {path!r} is wrong: {problem}. Write the manifest "
        "again from files that you trust."
    )
