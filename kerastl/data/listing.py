"""Which files a folder or a table names, and of which class each should be; none is opened."""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kerastl._checks import did_you_mean
from kerastl._task import ONE_CLASS, LabelColumns
from kerastl.data import skip_list
from kerastl.data.file_report import printable
from kerastl.data.loaded import PARTS, join_names
from kerastl.errors import ArgumentError, BadFile, DataError

_JUNK = ("__macosx", "thumbs.db", "desktop.ini")
_SIDE_ENDINGS = (".txt", ".csv", ".json", ".xml", ".md", ".html", ".yaml", ".yml")
_SIDE_NAMES = ("license", "readme", "copying", "notice")
_IMAGE_COLUMNS = ("image", "path", "file", "filename", "image_path")

DELIMITER = "|"  # fastai's usual `label_delim`, beside the space, which names have inside


class Entry(NamedTuple):
    """A file that should be an image of a class, or of several labels or numbers."""

    part: str
    path: str
    name: str
    label: str
    """The class; of several columns the text of all cells."""
    targets: tuple[Any, ...] = ()
    """What the task of the table parsed: the names of the labels, or the numbers."""


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
        name = os.path.relpath(path, self.folder or ".")
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
                f"{len(self._unused)} lines of {skip_list.NAME} name no file here "
                f"(such as {printable(next(iter(self._unused)))})"
            )

    def names(self, printed: Iterable[str]) -> list[str]:
        """Return the names relative to `folder` of paths as reports print them."""
        raw = self._raw | {printable(entry.path): entry.path for entry in self.entries}
        return [os.path.relpath(raw.get(path, path), self.folder or ".") for path in printed]

    @property
    def num_files(self) -> int:
        """How many files should be images."""
        return len(self.entries) + len(self.bad)


def list_folder(root: str) -> Listing:
    """List a folder of one folder per class, or of `train`, `val` and `test` with those inside."""
    listing = Listing(root)
    parts = _part_folders(root)
    for part, folder in parts.items():
        _list_classes(part, folder, listing)
    if root not in parts.values():
        _note_loose(root, list(parts.values()), listing)
    listing.warn_of_unused_skips()
    return listing


def list_table(
    path: str,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    columns: LabelColumns = ONE_CLASS,
    class_names: Sequence[str] | None = None,
) -> Listing:
    """List a CSV of image files, relative to its folder, and their labels.

    Args:
        path: of the table.
        image_column: of the paths.
        label_column: of the labels, or of numbers; several columns where the task has them.
        columns: what the task says of the columns of labels.
        class_names: where there can be several columns, and all of these are some, they are taken.
    """
    header, rows = _read_rows(path)
    image = _column(header, image_column, _IMAGE_COLUMNS, "image_column", path)
    part = next((name for name in header if name.strip().lower() == "split"), None)
    others = [name for name in header if name not in (image, part)]
    names = _label_columns(columns, header, others, label_column, class_names, path)
    listing = Listing(os.path.dirname(path), columns=names)
    for line, row in enumerate(rows, start=2):
        cells = {name: (row[name] or "").strip() for name in names}
        label = DELIMITER.join(cells.values())
        if not row[image] or not (label or columns.are_several):
            raise DataError(
                f"Each row needs an image and a label. Received: {row} in line {line} of {path}. "
                "Complete or remove the row."
            )
        file = os.path.join(listing.folder, row[image])
        split = row[part] if part else "train"
        if (in_part := PARTS.get(split.strip().lower())) is None:
            raise DataError(
                f"A split must be one of {join_names(list(PARTS))}. Received: {split!r} in line "
                f"{line} of {path}. Correct the row."
            )
        targets = columns.parse(cells, f"line {line} of {path}")
        if not listing.skips(file):
            listing.entries.append(Entry(in_part, file, row[image], label, targets))
    listing.warn_of_unused_skips()
    return listing


def _label_columns(
    columns: LabelColumns,
    header: Sequence[str],
    others: Sequence[str],
    wanted: str | Sequence[str] | None,
    class_names: Sequence[str] | None,
    path: str,
) -> list[str]:
    """Return the columns of labels: those asked for, one of a known name, or all that are left.

    The last only where there can be several.
    """
    if wanted is not None and not isinstance(wanted, str):
        if not columns.are_several and len(wanted) != 1:
            raise ArgumentError(
                "Where an image is of one class, `label_column` names one column. Received: "
                f"{list(wanted)!r}. Pass task='multi_label' where an image has several labels."
            )
        return [_column(header, name, (), "label_column", path) for name in wanted]
    if wanted is not None or not columns.are_several:
        return [_column(header, wanted, columns.names, "label_column", path)]
    if class_names is not None and set(class_names) <= set(others):
        return list(class_names)
    known = [name for name in others if name.strip().lower() in columns.names]
    found = known[:1] or list(others)
    if not found:
        raise DataError(
            f"{path!r} needs a column of {columns.plural} beside the images. Received the columns: "
            f"{join_names(header)}. Add one, such as {(*columns.names, columns.plural)[0]!r}."
        )
    return found


def _part_folders(root: str) -> dict[str, str]:
    """Return the folder of each part; the root itself when it has no split."""
    folders = _subfolders(root)
    named = [folder for folder in folders if os.path.basename(folder).lower() in PARTS]
    parts = {PARTS[os.path.basename(folder).lower()]: folder for folder in named}
    if "train" not in parts or not _subfolders(parts["train"]):
        return {"train": root}
    if len(named) > len(parts):
        raise DataError(
            f"Each part of the data must have one folder. Received: {join_names(named)}. "
            "Join or rename the folders that mean the same."
        )
    return parts if len(parts) > 1 or len(folders) == 1 else {"train": root}


def _list_classes(part: str, folder: str, listing: Listing) -> None:
    classes = _subfolders(folder)
    if not classes:
        listing.errors.append(
            f"A folder of images needs one folder per class inside. Received: {folder!r} with no "
            "folders. Name the folder that holds the class folders, or a CSV of paths and labels."
        )
    for path in classes:
        name = os.path.basename(path)
        if name != printable(name):
            listing.errors.append(
                f"A class folder must have a UTF-8 name. Received: {printable(path)}. "
                "Rename the folder."
            )
            name = printable(name)
        before = listing.num_files + len(listing.skipped)
        for file in _walk(path, listing):
            entry = Entry(part, file, os.path.relpath(file, listing.folder), name)
            listing.entries.append(entry)
        if listing.num_files + len(listing.skipped) == before:
            listing.errors.append(
                f"A class folder must hold images. Received: {printable(path)!r} with none. "
                "Remove the folder or fill it."
            )
    _note_loose(folder, classes, listing)


def _note_loose(folder: str, wanted: Sequence[str], listing: Listing) -> None:
    """Note what lies in a folder beside the folders that are read."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.path not in wanted and not is_junk(entry.name):
            side = is_side_file(entry.name) and not _is_folder(entry)
            (listing.ignored if side else listing.loose).append(entry.path)


def _walk(folder: str, listing: Listing) -> list[str]:
    """Return the files under a folder that should be images; note the others in `listing`."""
    if os.path.islink(folder):
        if not listing.skips(folder):
            listing.note_bad(folder, "a link to a folder")
        return []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        listing.note_bad(folder, f"a folder: {error.strerror}")
        return []
    files = []
    for entry in entries:
        if is_junk(entry.name):
            continue
        if _is_folder(entry):
            files += _walk(entry.path, listing)
        elif is_side_file(entry.name):
            listing.ignored.append(entry.path)
        elif listing.skips(entry.path):
            continue
        elif reason := _why_not_a_file(entry, listing.folder):
            listing.note_bad(entry.path, reason)
        else:
            files.append(entry.path)
    return files


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _why_not_a_file(entry: "os.DirEntry[str]", root: str) -> str | None:
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not os.path.exists(entry.path):
            return "a dead link"
        if not target.startswith(os.path.realpath(root) + os.sep):
            return f"a link out of {printable(root)}"
    return None if entry.is_file() else "not a regular file"


def _subfolders(folder: str) -> list[str]:
    return sorted(
        entry.path for entry in os.scandir(folder) if _is_folder(entry) and not is_junk(entry.name)
    )


def is_junk(name: str) -> bool:
    """Return whether a name is one that systems and tools leave about."""
    return name.startswith(".") or name.lower() in _JUNK


def is_side_file(name: str) -> bool:
    """Return whether a name is that of a text beside the images."""
    stem, ending = os.path.splitext(name.lower())
    return ending in _SIDE_ENDINGS or (not ending and stem in _SIDE_NAMES)


def _read_rows(path: str) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count), restval="")
            return list(reader.fieldnames or []), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"A table must be CSV in UTF-8. Received: {path!r} ({error}). Save it as UTF-8."
        ) from None


def _column(
    header: Sequence[str], wanted: str | None, known: Iterable[str], argument: str, path: str
) -> str:
    """Return the name of the column that is asked for, or the known one that is there."""
    names = [wanted] if wanted else list(known)
    for name in header:
        if name == wanted or (wanted is None and name.strip().lower() in names):
            return name
    raise DataError(
        f"{path!r} needs a column named {' or '.join(map(repr, names))}. Received the columns: "
        f"{join_names(header)}. Name it with `{argument}`.{did_you_mean(names[0], header)}"
    )
