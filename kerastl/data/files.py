"""Splits of image files, from folders or from a table."""

from collections.abc import Iterable, Sequence

import numpy as np

from kerastl.data import scan
from kerastl.data.copies import Item, exact_copies, warnings_of
from kerastl.data.file_report import FileReport, printable
from kerastl.data.listing import Entry, Listing, list_folder, list_table
from kerastl.data.loaded import Loaded, listed, order_classes
from kerastl.data.pixels import FileSource
from kerastl.data.split import Split
from kerastl.data.targets import DELIMITER, label_matrix
from kerastl.errors import DataError, UnreadableImagesError


def read_folder(root: str, class_names: Sequence[str] | None, on_bad: str) -> Loaded:
    """Read a folder of one folder per class, or of `train`, `val` and `test` with those inside."""
    listing = list_folder(root)
    names = order_classes((entry.label for entry in listing.entries), class_names)
    return _load(listing, names, on_bad)


def read_table(
    path: str,
    class_names: Sequence[str] | None,
    on_bad: str,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    task: str = "classification",
) -> Loaded:
    """Read a CSV of image files, relative to its folder, and their labels."""
    listing = list_table(path, image_column, label_column, task, class_names)
    labels: Iterable[str] = (entry.label for entry in listing.entries)
    if task == "regression":
        return _load(listing, _target_names(listing.columns, class_names), on_bad, task)
    if task == "multi_label":
        found = listing.columns if len(listing.columns) > 1 else _all_labels(listing)
        return _load(listing, order_classes(found, class_names, as_numbers=True), on_bad, task)
    names = order_classes(labels, class_names, as_numbers=True)
    listing.warnings += _doubts(names)
    return _load(listing, names, on_bad)


def _target_names(columns: Sequence[str], class_names: Sequence[str] | None) -> list[str]:
    if class_names is not None and len(class_names) != len(columns):
        raise DataError(
            f"The targets must be {listed(class_names)}. Received the columns: {listed(columns)}. "
            "Name the columns as the targets, or give them by `label_column`."
        )
    return list(columns if class_names is None else class_names)


def _all_labels(listing: Listing) -> list[str]:
    """Return the labels that occur in the one column that holds them all."""
    found = list(dict.fromkeys(label for entry in listing.entries for label in entry.targets))
    if found and {*found} <= {"0", "1"}:
        raise DataError(
            f"The labels of images must have names. Received 0 and 1 alone in column "
            f"{listing.columns[0]!r}. Name several columns of 0 and 1 by `label_column`, or pass "
            "task='classification'."
        )
    return found


def _doubts(names: Sequence[str]) -> list[str]:
    """Warn of classes that look like what is of another task."""
    several = [name for name in names if DELIMITER in name]
    if several:
        return [
            f"{len(several)} classes have {DELIMITER!r} in their names (such as {several[0]}): if "
            "it parts several labels of an image, pass task='multi_label'"
        ]
    if all(_is_number(name) for name in names) and not all(_is_whole(name) for name in names):
        return [
            f"the {len(names)} classes are numbers (such as {names[0]}): to predict a number, pass "
            "task='regression'"
        ]
    return []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_whole(text: str) -> bool:
    return text.lstrip("+-").isdecimal()


def _labels(entries: Sequence[Entry], names: Sequence[str], task: str) -> np.ndarray:
    if task == "multi_label":
        return label_matrix([entry.targets for entry in entries], names)
    if task == "regression":
        return np.array([entry.targets for entry in entries], np.float32)
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[entry.label] for entry in entries])


def _load(listing: Listing, names: list[str], on_bad: str, task: str = "classification") -> Loaded:
    """Scan what is listed and make splits of what is readable."""
    if listing.errors:
        raise DataError("\n".join(listing.errors))
    reports, bad = scan.scan_files([entry.path for entry in listing.entries])
    bad = listing.bad + bad
    if bad and on_bad == "error":
        raise UnreadableImagesError(bad, listing.num_files)
    by_path = {report.path: report for report in reports}
    parts = {}
    for part in dict.fromkeys(["train", *(entry.part for entry in listing.entries)]):
        mine = [e for e in listing.entries if e.part == part and e.path in by_path]
        if not mine:
            raise DataError(
                f"There is no readable image in {part}. Received: {len(reports)} readable images "
                f"and {len(bad)} bad files in all. Name the folder or table of the images."
            )
        source = FileSource([by_path[e.path] for e in mine], [e.name for e in mine])
        parts[part] = Split(source, _labels(mine, names, task), len(names), task)
    warnings = [*listing.warnings, *_remarks(reports), *_warn_of_copies(listing, by_path)]
    if listing.loose:
        warnings.append(
            f"{len(listing.loose)} files or folders belong to no class and are ignored (such as "
            f"{printable(listing.loose[0])})"
        )
    return Loaded(parts, names, listing.skipped + bad, listing.ignored + listing.loose, warnings)


def _warn_of_copies(listing: Listing, by_path: dict[str, FileReport]) -> list[str]:
    """Warn of pictures that lie in several parts or classes, by the hash of their bytes."""
    items = [
        Item(entry.path, entry.part, entry.label, str(by_path[entry.path].content))
        for entry in listing.entries
        if entry.path in by_path
    ]
    return warnings_of(exact_copies(items))


def _remarks(reports: Sequence[FileReport]) -> list[str]:
    """Return one line for each kind of remark, with a count and an example."""
    examples: dict[str, list[str]] = {}
    for report in reports:
        for remark in report.all_remarks():
            examples.setdefault(remark, []).append(report.path)
    return [
        f"{len(paths)} images: {remark} (such as {printable(paths[0])})"
        for remark, paths in examples.items()
    ]
