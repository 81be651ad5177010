"""Lists the entries of a folder or table with problems, without opening images."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kerastl.data import skip_list
from kerastl.data.classes import normal
from kerastl.data.file_report import printable
from kerastl.errors import BadFile

_JUNK = ("__macosx", "thumbs.db", "desktop.ini")
_SIDE_ENDINGS = (".txt", ".csv", ".json", ".xml", ".md", ".html", ".yaml", ".yml")
_SIDE_NAMES = ("license", "readme", "copying", "notice")


class Entry(NamedTuple):
    """A file that should be an image of a class, or of several labels or numbers."""

    part: str
    path: str
    name: str
    label: str
    """The class; of several columns the text of all cells."""
    targets: tuple[Any, ...] = ()
    """What the task of the table parsed: the names of the labels, or the numbers."""
    group: str = ""
    """Images of one group, such as a patient, stay on one side of a split."""
    shape: tuple[float, float] | None = None
    """Width and height of the image that its boxes are for, where a source says so."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the image, once it was read."""


@dataclass
class Listing:
    """What a folder or a table says there is, and what is wrong with that."""

    folder: str
    """What the names of the entries are relative to."""
    entries: list[Entry] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    skipped: list[BadFile] = field(default_factory=list)
    """What the skip list leaves out."""
    warnings: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    """Of a table: the columns of the labels or targets."""
    errors: list[str] = field(default_factory=list)
    """Why the data cannot be used as they are; the files of other classes are listed anyway."""

    _raw: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._to_skip = skip_list.read_skip_list(self.folder or ".")
        self._unused = dict(self._to_skip)

    def note_bad(self, path: str, reason: str) -> None:
        """Note a file that cannot be an image."""
        self.bad.append(BadFile(printable(path), reason))
        self._raw[printable(path)] = path

    def skips(self, path: str) -> bool:
        """Whether the skip list names a file, which is then noted as skipped."""
        if not self._to_skip:
            return False
        name = normal(os.path.relpath(path, self.folder or "."))
        if name not in self._to_skip:
            return False
        self._unused.pop(name, None)
        because = f": {self._to_skip[name]}" if self._to_skip[name] else ""
        self.skipped.append(BadFile(printable(path), f"in {skip_list.NAME}{because}"))
        return True

    def warn_of_unused_skips(self) -> None:
        """Warn of lines of the skip list that have named nothing."""
        if self._unused:
            self.warnings.append(
                f"{len(self._unused)} lines of {skip_list.NAME} do not match a file (such as "
                f"{printable(next(iter(self._unused)))})"
            )

    def names(self, printed: Iterable[str]) -> list[str]:
        """Return the names relative to `folder` of paths as reports print them."""
        raw = self._raw | {printable(entry.path): entry.path for entry in self.entries}
        return [os.path.relpath(raw.get(path, path), self.folder or ".") for path in printed]

    @property
    def num_files(self) -> int:
        """How many files should be images."""
        return len(self.entries) + len(self.bad)


def is_junk(name: str) -> bool:
    """Return whether a name is one that systems and tools leave about."""
    return name.startswith(".") or name.lower() in _JUNK


def is_side_file(name: str) -> bool:
    """Return whether a name is that of a text beside the images."""
    stem, ending = os.path.splitext(name.lower())
    return ending in _SIDE_ENDINGS or (not ending and stem in _SIDE_NAMES)
