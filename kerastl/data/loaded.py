"""`SourceParts`, what each reader returns to `load_data`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kerastl.errors import BadFile

if TYPE_CHECKING:  # a listing needs no TensorFlow
    from kerastl.data.split import Split


@dataclass(frozen=True)
class SourceParts:
    """The parts that a source names: "train" alone when it has no split of its own."""

    parts: "dict[str, Split]"
    class_names: list[str]
    skipped: list[BadFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def join_names(names: Sequence[object], most: int = 10) -> str:
    """Return names as text, the first few of a long list."""
    if not names:
        return "none"
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name) for name in names[:most]) + rest
