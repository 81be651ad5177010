"""Decides which folders are classes, which are parts of the data, and lists their files."""

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

from kerastl.data.classes import normal
from kerastl.data.file_report import printable
from kerastl.data.listing import Entry, Listing, is_junk, is_side_file
from kerastl.data.loaded import join_names
from kerastl.data.parts import WORDS, part_of
from kerastl.data.tables import is_table
from kerastl.errors import DataError


class _ClassFolder(NamedTuple):
    part: str
    name: str
    path: str


def list_folder(root: str, class_names: Sequence[str] | None = None) -> Listing:
    """List a folder of one folder per class, or of parts (`train`, `test`) with those inside.

    Parts may lie inside the classes too, and all of it in a folder of its own. `class_names` are
    no parts, whatever they are called.
    """
    listing = Listing(root)
    known = {normal(name) for name in class_names or ()}
    home = _go_down(root, known)
    if home != root and part_of(_name(home)) != "train":
        listing.warnings.append(f"kerastl looks for the classes in {printable(home)}")
    classes, visited = _find_classes(home, known, listing)
    names = {each.name for each in classes}
    if not names or (len(names) == 1 and _tables(root)):
        received = f"the folder {names.pop()!r} alone" if names else "no folders"
        tables = f", such as {join_names(_tables(root), 3)}" if _tables(root) else ""
        listing.errors.append(
            f"A folder of images needs one folder per class inside. Received: {home!r} with "
            f"{received}. Pass the folder that contains the class folders, or a CSV of paths "
            f"and labels{tables}."
        )
    _list_classes(classes, listing)
    used = _with_parents([home, *visited, *listing.ignored, *(each.path for each in classes)], root)
    for folder in dict.fromkeys([root, home, *visited]):
        _note_loose(folder, used, listing)
    listing.warn_of_unused_skips()
    return listing


def _find_classes(
    home: str, known: set[str], listing: Listing
) -> tuple[list[_ClassFolder], list[str]]:
    """Return the class folders of each part, and the folders between them and `home`."""
    folders = _subfolders(home)
    parts: dict[str, list[str]] = {}
    for folder in folders:
        part = None if _name(folder) in known else part_of(_name(folder))
        if part is not None:
            parts.setdefault(part, []).append(folder)
    if "train" in parts and (len(parts) > 1 or _is_part_alone(parts["train"][0], folders)):
        return _find_in_parts(parts, known, listing)
    inside = {folder: _subfolders(folder) for folder in folders}
    bare = len(folders) > 1 and not any(_holds_files(folder) for folder in folders)
    if bare and all(_is_split(inner) for inner in inside.values()):
        found = [
            _ClassFolder(str(part_of(_name(inner))), _name(folder), inner)
            for folder, each in inside.items()
            for inner in each
        ]
        return found, folders
    if bare and not known >= {_name(folder) for folder in folders}:
        _refuse_equal_folders(inside)
    return [_ClassFolder("train", _name(folder), folder) for folder in folders], []


def _find_in_parts(
    parts: dict[str, list[str]], known: set[str], listing: Listing
) -> tuple[list[_ClassFolder], list[str]]:
    """Return the classes in folders that are named as parts; one without labels is left out."""
    twice = [folder for folders in parts.values() if len(folders) > 1 for folder in folders]
    if twice:
        raise DataError(
            "Each part of the data must have exactly one folder. Received: "
            f"{join_names(twice)}. Join or rename the folders of the same part."
        )
    homes = {part: _go_down(folder, known) for part, (folder,) in parts.items()}
    inside = {part: _subfolders(home) for part, home in homes.items()}
    trained = {_name(folder) for folder in inside["train"]}
    if not trained:
        raise DataError(
            "The training images need one folder per class. Received: "
            f"{parts['train'][0]!r} without folders, next to folders of other parts. Sort the "
            "images into class folders, pass a CSV of paths and labels, or pass "
            "`class_names` if these are the classes."
        )
    classes, visited = [], []
    for part, (folder,) in parts.items():
        found = inside[part]
        if not found or (len(found) == 1 and part != "train" and _name(found[0]) not in trained):
            listing.ignored.append(folder)
            listing.warnings.append(
                f"{printable(folder)} is left out: its images are not in class folders, so "
                "they have no labels"
            )
            continue
        classes += [_ClassFolder(part, _name(each), each) for each in found]
        visited += [folder, homes[part]]
    return classes, visited


def _is_part_alone(train: str, folders: Sequence[str]) -> bool:
    """Whether a folder of the name of training images is that, without one of another part."""
    if _holds_files(train) or len(_subfolders(train)) < 2:
        return False
    if any(_holds_files(folder) or _subfolders(folder) for folder in folders if folder != train):
        raise DataError(
            f"The folder {train!r} contains folders, so it is not clear whether it is a "
            f"class or the training part. Received next to it: {join_names(folders)}. Pass "
            "only this folder to train on its contents, or pass `class_names` if these are "
            "the classes."
        )
    return True


def _refuse_equal_folders(inside: dict[str, list[str]]) -> None:
    """Raise an error if all candidates for classes contain the same folders."""
    names = [{_name(folder).casefold() for folder in each} for each in inside.values()]
    shared, together = set.intersection(*names), set.union(*names)
    if len(together) < 2 or 2 * len(shared) < len(together):
        return
    outer = [_name(folder) for folder in inside]
    inner = list(dict.fromkeys(_name(folder) for each in inside.values() for folder in each))
    raise DataError(
        f"The folders {join_names(outer)} all contain the folders {join_names(inner)}, so it "
        "is not clear which are the classes. If the inner ones are, rename the outer ones "
        f"to {WORDS}, or pass one of them. If the outer ones are, pass them as "
        "`class_names`, or move the images up."
    )


def _is_split(folders: Sequence[str]) -> bool:
    """Whether folders are all named as parts, one of them as that to train on."""
    found = [part_of(_name(folder)) for folder in folders]
    return "train" in found and None not in found


def _go_down(folder: str, known: set[str]) -> str:
    """Return the folder, or its only subfolder if that contains folders."""
    while True:
        inside = [path for path in _subfolders(folder) if not os.path.islink(path)]
        if len(inside) != 1 or len(_subfolders(folder)) != 1 or _name(inside[0]) in known:
            return folder
        if _holds_files(folder) or not _subfolders(inside[0]) or _holds_files(inside[0]):
            return folder
        (folder,) = inside


def _tables(folder: str) -> list[str]:
    """Return the tables of a folder, which may say what its images are."""
    paths = (os.path.join(folder, name) for name in sorted(os.listdir(folder)))
    return [path for path in paths if is_table(path)]


def _list_classes(classes: Sequence[_ClassFolder], listing: Listing) -> None:
    seen: dict[tuple[str, str], str] = {}
    for part, name, path in classes:
        if name != printable(name):
            listing.errors.append(
                f"A class folder must have a UTF-8 name. Received: {printable(path)}. "
                "Rename the folder."
            )
            name = printable(name)
        other = seen.setdefault((part, name), path)
        if os.path.basename(other) != os.path.basename(path):
            listing.warnings.append(
                f"{printable(other)} and another folder are the same class: their names "
                "differ only in the Unicode form"
            )
        before = listing.num_files + len(listing.skipped)
        for file in _walk(path, listing):
            entry = Entry(part, file, os.path.relpath(file, listing.folder), name)
            listing.entries.append(entry)
        if listing.num_files + len(listing.skipped) == before:
            listing.errors.append(
                f"A class folder must contain images. Received: {printable(path)!r} without "
                "images. Remove the folder, or add images."
            )


def _note_loose(folder: str, wanted: Collection[str], listing: Listing) -> None:
    """Record other entries next to the folders that are read."""
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
            return f"a link to a place outside {printable(root)}"
    return None if entry.is_file() else "not a regular file"


def _subfolders(folder: str) -> list[str]:
    return sorted(
        entry.path for entry in os.scandir(folder) if _is_folder(entry) and not is_junk(entry.name)
    )


def _holds_files(folder: str) -> bool:
    """Whether a folder directly contains files that may be images."""
    with os.scandir(folder) as entries:
        return any(
            not _is_folder(entry) and not is_junk(entry.name) and not is_side_file(entry.name)
            for entry in entries
        )


def _with_parents(paths: Sequence[str], root: str) -> set[str]:
    """Return paths inside `root`, and their folders."""
    found: set[str] = set()
    for path in paths:
        while len(path) > len(root) and path not in found:
            found.add(path)
            path = os.path.dirname(path)
    return found


def _name(folder: str) -> str:
    return normal(os.path.basename(folder))
