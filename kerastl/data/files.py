"""Splits of image files, from folders or from a table."""

from collections.abc import Sequence
from typing import Any

from kerastl._task import Task
from kerastl.data import scan
from kerastl.data.classes import order_classes
from kerastl.data.copies import exact_copies, items_of, sides, warnings_of
from kerastl.data.file_report import FileReport, printable, range_warnings
from kerastl.data.folders import list_folder
from kerastl.data.groups import groups_in_names
from kerastl.data.listing import Entry, Listing
from kerastl.data.loaded import SourceParts
from kerastl.data.options import DataOptions
from kerastl.data.pixels import FileSource
from kerastl.data.split import Split
from kerastl.data.tables import list_table
from kerastl.errors import DataError, UnreadableImagesError


def read_folder(
    root: str, class_names: Sequence[str] | None, on_bad: str, task: Task, options: DataOptions
) -> SourceParts:
    """Read a folder of one folder per class, or of parts with those inside."""
    listing = list_folder(root, class_names)
    if listing.errors:
        raise DataError("\n".join(listing.errors))
    names = order_classes((entry.label for entry in listing.entries), class_names)
    return load_listing(listing, names, on_bad, task, options)


def read_table(
    source: Any, class_names: Sequence[str] | None, on_bad: str, task: Task, options: DataOptions
) -> SourceParts:
    """Read a CSV of image files, relative to its folder, and their labels; or a DataFrame."""
    listing = list_table(source, options, task.columns, class_names)
    if listing.errors:
        raise DataError("\n".join(listing.errors))
    return load_listing(listing, task.table_names(listing, class_names), on_bad, task, options)


def load_listing(
    listing: Listing, names: list[str], on_bad: str, task: Task, options: DataOptions
) -> SourceParts:
    """Read the images of a listing and give them the labels of their entries."""
    bits = options.bit_depth
    paths = [entry.path for entry in listing.entries]
    reports, bad = scan.scan_files(paths, rules=options.rules)
    bad = listing.bad + bad
    if bad and on_bad == "error":
        raise UnreadableImagesError(bad, listing.num_files)
    by_path = {report.path: report for report in reports}
    entries = [
        entry._replace(size=(report.height, report.width))
        for entry in listing.entries
        if (report := by_path.get(entry.path)) is not None
    ]
    items = items_of(entries, by_path)
    named = _named_groups(entries, options.group_by)
    groups = sides([one.content for one in items], [one.look for one in items], named)
    parts = {}
    for part in dict.fromkeys(["train", *(entry.part for entry in listing.entries)]):
        rows = [row for row, entry in enumerate(entries) if entry.part == part]
        mine = [entries[row] for row in rows]
        if not mine:
            raise DataError(
                f"There is no readable image in {part}. Received: {len(reports)} readable "
                f"images and {len(bad)} bad files. Pass the folder or table of the images."
            )
        source = FileSource([by_path[e.path] for e in mine], [e.name for e in mine], options.rules)
        labels = task.table_labels(mine, names)
        parts[part] = Split(source, labels, len(names), task, groups[rows])
    copies = warnings_of(exact_copies(items))
    warnings = [*listing.warnings, *_remarks(reports), *range_warnings(reports, bits), *copies]
    if listing.loose:
        warnings.append(
            f"{len(listing.loose)} files or folders do not belong to a class and are ignored "
            f"(such as {printable(listing.loose[0])})"
        )
    return SourceParts(
        parts, names, listing.skipped + bad, listing.ignored + listing.loose, warnings
    )


def _named_groups(entries: Sequence[Entry], pattern: str | None) -> list[str]:
    """Return the name of the group of each entry: of its column, else found in its name."""
    if pattern is None:
        return [entry.group for entry in entries]
    found = groups_in_names([entry.name for entry in entries], pattern)
    return [entry.group or name for entry, name in zip(entries, found, strict=True)]


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
