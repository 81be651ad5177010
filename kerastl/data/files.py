"""Splits of image files, from folders or from a table."""

from collections.abc import Sequence

from kerastl._task import Task
from kerastl.data import scan
from kerastl.data.copies import exact_copies, items_of, warnings_of
from kerastl.data.file_report import FileReport, printable
from kerastl.data.listing import Listing, list_folder, list_table
from kerastl.data.loaded import SourceParts, order_classes
from kerastl.data.pixels import FileSource
from kerastl.data.split import Split
from kerastl.errors import DataError, UnreadableImagesError


def read_folder(
    root: str, class_names: Sequence[str] | None, on_bad: str, task: Task
) -> SourceParts:
    """Read a folder of one folder per class, or of `train`, `val` and `test` with those inside."""
    listing = list_folder(root)
    names = order_classes((entry.label for entry in listing.entries), class_names)
    return _load(listing, names, on_bad, task)


def read_table(
    path: str,
    class_names: Sequence[str] | None,
    on_bad: str,
    task: Task,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
) -> SourceParts:
    """Read a CSV of image files, relative to its folder, and their labels."""
    listing = list_table(path, image_column, label_column, task.columns, class_names)
    return _load(listing, task.table_names(listing, class_names), on_bad, task)


def _load(listing: Listing, names: list[str], on_bad: str, task: Task) -> SourceParts:
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
        parts[part] = Split(source, task.table_labels(mine, names), len(names), task)
    copies = warnings_of(exact_copies(items_of(listing.entries, by_path)))
    warnings = [*listing.warnings, *_remarks(reports), *copies]
    if listing.loose:
        warnings.append(
            f"{len(listing.loose)} files or folders belong to no class and are ignored (such as "
            f"{printable(listing.loose[0])})"
        )
    return SourceParts(
        parts, names, listing.skipped + bad, listing.ignored + listing.loose, warnings
    )


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
