"""Names of files in files of lines, and files that are written whole or not at all."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MEANINGS = {written: meant for meant, written in _ESCAPES.items()}


def escape(text: str, characters: str = "\\\n\r\t") -> str:
    """Return `text` without these characters, as `unescape` understands it."""
    return "".join(_ESCAPES[c] if c in characters else c for c in text)


def unescape(text: str) -> str:
    """Return what `escape` was given.

    Raises:
        ValueError: A backslash stands for nothing.
    """

    def meaning(found: "re.Match[str]") -> str:
        if found[0] not in _MEANINGS:
            raise ValueError(f"{found[0]!r} stands for nothing")
        return _MEANINGS[found[0]]

    return re.sub(r"\\.?", meaning, text, flags=re.DOTALL)


def atomic_write_text(path: str, text: str) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file,
    ):
        file.write(text)


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Yield the name of an empty file, beside `path`, that takes its place when all went well.

    A kill at any moment leaves what was at `path` before, or the whole new file.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".kerastl-", dir=os.path.dirname(path) or ".")
    os.close(descriptor)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise
