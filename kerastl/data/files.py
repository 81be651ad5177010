"""Image files and their classes, from folders or from a table."""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kerastl._checks import did_you_mean
from kerastl.data import scan
from kerastl.data.file_report import FileReport, printable
from kerastl.data.loaded import PARTS, Loaded, listed, order_classes
from kerastl.data.pixels import FileSource
from kerastl.data.split import Split
from kerastl.errors import BadFile, DataError, UnreadableImagesError

_JUNK = ("__macosx", "thumbs.db", "desktop.ini")
_SIDE_ENDINGS = (".txt", ".csv", ".json", ".xml", ".md", ".html", ".yaml", ".yml")
_SIDE_NAMES = ("license", "readme", "copying", "notice")
_IMAGE_COLUMNS = ("image", "path", "file", "filename", "image_path")
_LABEL_COLUMNS = ("label", "class", "target", "category")


class Entry(NamedTuple):
    """A file that should be an image of a class."""

    part: str
    path: str
    name: str
    label: str


@dataclass
class Listing:
    """What a folder or a table says there is."""

    entries: list[Entry] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


def read_folder(root: str, class_names: Sequence[str] | None, on_bad: str) -> Loaded:
    """Read a folder of one folder per class, or of `train`, `val` and `test` with those inside."""
    listing = Listing()
    parts = _part_folders(root)
    for part, folder in parts.items():
        _list_classes(part, folder, root, listing)
    if root not in parts.values():
        _note_loose(root, list(parts.values()), listing)
    names = order_classes((entry.label for entry in listing.entries), class_names)
    return _load(listing, names, on_bad)


def read_table(
    path: str,
    class_names: Sequence[str] | None,
    on_bad: str,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Loaded:
    """Read a CSV of image files, relative to its folder, and their labels."""
    header, rows = _read_rows(path)
    image = _column(header, image_column, _IMAGE_COLUMNS, "image_column", path)
    label = _column(header, label_column, _LABEL_COLUMNS, "label_column", path)
    part = next((name for name in header if name.strip().lower() == "split"), None)
    listing = Listing()
    for line, row in enumerate(rows, start=2):
        if not row[image] or not row[label]:
            raise DataError(
                f"Each row needs an image and a label. Received: {row} in line {line} of {path}. "
                "Complete or remove the row."
            )
        file = os.path.join(os.path.dirname(path), row[image])
        name = _part_of(row[part], line, path) if part else "train"
        listing.entries.append(Entry(name, file, row[image], row[label].strip()))
    labels = (entry.label for entry in listing.entries)
    return _load(listing, order_classes(labels, class_names, as_numbers=True), on_bad)


def _load(listing: Listing, names: list[str], on_bad: str) -> Loaded:
    """Scan what is listed and make splits of what is readable."""
    reports, bad = scan.scan_files([entry.path for entry in listing.entries])
    bad = listing.bad + bad
    if bad and on_bad == "error":
        raise UnreadableImagesError(bad, len(listing.entries) + len(listing.bad))
    by_path = {report.path: report for report in reports}
    numbers = {name: number for number, name in enumerate(names)}
    parts = {}
    for part in dict.fromkeys(["train", *(entry.part for entry in listing.entries)]):
        mine = [e for e in listing.entries if e.part == part and e.path in by_path]
        if not mine:
            raise DataError(
                f"There is no readable image in {part}. Received: {len(reports)} readable images "
                f"and {len(bad)} bad files in all. Name the folder or table of the images."
            )
        source = FileSource([by_path[e.path] for e in mine], [e.name for e in mine])
        parts[part] = Split(source, np.array([numbers[e.label] for e in mine]), len(names))
    warnings = _remarks(reports)
    if listing.loose:
        warnings.append(
            f"{len(listing.loose)} files or folders belong to no class and are ignored (such as "
            f"{printable(listing.loose[0])})"
        )
    return Loaded(parts, names, bad, listing.ignored + listing.loose, warnings)


def _remarks(reports: Sequence[FileReport]) -> list[str]:
    """Return one line for each kind of remark, with a count and an example."""
    examples: dict[str, list[str]] = {}
    for report in reports:
        remarks = list(report.remarks)
        if report.needs_pillow:
            remarks.append(f"{report.format} that an exported model cannot decode; convert to PNG")
        for remark in remarks:
            examples.setdefault(remark, []).append(report.path)
    return [
        f"{len(paths)} images: {remark} (such as {printable(paths[0])})"
        for remark, paths in examples.items()
    ]


def _part_folders(root: str) -> dict[str, str]:
    """Return the folder of each part; the root itself when it has no split."""
    folders = _subfolders(root)
    named = [folder for folder in folders if os.path.basename(folder).lower() in PARTS]
    parts = {PARTS[os.path.basename(folder).lower()]: folder for folder in named}
    if "train" not in parts or not _subfolders(parts["train"]):
        return {"train": root}
    if len(named) > len(parts):
        raise DataError(
            f"Each part of the data must have one folder. Received: {listed(named)}. "
            "Join or rename the folders that mean the same."
        )
    return parts if len(parts) > 1 or len(folders) == 1 else {"train": root}


def _list_classes(part: str, folder: str, root: str, listing: Listing) -> None:
    classes = _subfolders(folder)
    if not classes:
        raise DataError(
            f"A folder of images needs one folder per class inside. Received: {folder!r} with no "
            "folders. Name the folder that holds the class folders, or a CSV of paths and labels."
        )
    for path in classes:
        name = os.path.basename(path)
        if name != printable(name):
            raise DataError(
                f"A class folder must have a UTF-8 name. Received: {printable(path)}. "
                "Rename the folder."
            )
        files, bad_before = _walk(path, root, listing), len(listing.bad)
        if not files and len(listing.bad) == bad_before:
            raise DataError(
                f"A class folder must hold images. Received: {path!r} with none. "
                "Remove the folder or fill it."
            )
        listing.entries += [Entry(part, file, os.path.relpath(file, root), name) for file in files]
    _note_loose(folder, classes, listing)


def _note_loose(folder: str, wanted: Sequence[str], listing: Listing) -> None:
    """Note what lies in a folder beside the folders that are read."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.path not in wanted and not is_junk(entry.name):
            side = is_side_file(entry.name) and not entry.is_dir()
            (listing.ignored if side else listing.loose).append(entry.path)


def _walk(folder: str, root: str, listing: Listing) -> list[str]:
    """Return the files under a folder that should be images; note the others in `listing`."""
    if os.path.islink(folder):
        listing.bad.append(BadFile(printable(folder), "a link to a folder"))
        return []
    files = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_junk(entry.name):
            continue
        if entry.is_dir():
            files += _walk(entry.path, root, listing)
        elif is_side_file(entry.name):
            listing.ignored.append(entry.path)
        elif reason := _why_not_a_file(entry, root):
            listing.bad.append(BadFile(printable(entry.path), reason))
        else:
            files.append(entry.path)
    return files


def _why_not_a_file(entry: "os.DirEntry[str]", root: str) -> str | None:
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not os.path.exists(target):
            return "a dead link"
        if not target.startswith(os.path.realpath(root) + os.sep):
            return f"a link out of {printable(root)}"
    return None if entry.is_file() else "not a regular file"


def _subfolders(folder: str) -> list[str]:
    entries = [entry for entry in os.scandir(folder) if entry.is_dir() and not is_junk(entry.name)]
    return sorted(entry.path for entry in entries)


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
        f"{listed(header)}. Name it with `{argument}`.{did_you_mean(names[0], header)}"
    )


def _part_of(name: str, line: int, path: str) -> str:
    if name.strip().lower() not in PARTS:
        raise DataError(
            f"A split must be one of {listed(list(PARTS))}. Received: {name!r} in line {line} of "
            f"{path}. Correct the row."
        )
    return PARTS[name.strip().lower()]
