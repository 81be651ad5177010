"""Escapes file names in text files: backslashes, tabs and line breaks."""

import re

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
            raise ValueError(f"{found[0]!r} is not a known escape")
        return _MEANINGS[found[0]]

    return re.sub(r"\\.?", meaning, text, flags=re.DOTALL)
