"""The findings of a scan of a folder or table; no file is changed."""

import csv
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kerastl._steps import step
from kerastl.data import manifest, remote, scan, skip_list
from kerastl.data.classes import check_classes, class_places, normal, order_classes
from kerastl.data.copies import (
    Copies,
    Item,
    exact_copies,
    items_of,
    near_copies,
    to_leave_out,
    warnings_of,
)
from kerastl.data.file_report import FileReport, csv_cell, printable, range_warnings
from kerastl.data.folders import list_folder
from kerastl.data.listing import Listing
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.data.tables import is_table, list_table
from kerastl.errors import BadFile, DataError


class Finding(NamedTuple):
    """What is to be said about a file."""

    path: str
    kind: str
    """`bad` (no image), `changed` (against the manifest), `skipped` (by the skip list), `copy`
    (byte for byte), `alike` (as far as the look tells), `remark` or `label` (looks wrong)."""
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What `inspect_images` found out."""

    source: str
    listing: Listing
    reports: list[FileReport]
    bad: list[BadFile]
    copies: list[Copies]
    changed: list[BadFile]
    """The files that are not as the manifest says."""
    errors: list[str]
    """Why `load_data` would refuse the data, whatever is left out."""
    warnings: list[str]
    labels: tuple[Finding, ...] = ()
    """Labels that look wrong, the most suspicious first."""

    @property
    def is_accepted(self) -> bool:
        """Whether `load_data` accepts the data, and the manifest matches."""
        return not self.bad and not self.errors and not self.changed

    def findings(self) -> list[Finding]:
        """Return what there is to say about each file, what is worst first."""
        return [
            *(Finding(path, "bad", reason) for path, reason in self.bad),
            *(Finding(path, "changed", reason) for path, reason in self.changed),
            *(finding for group in self.copies for finding in _of_copies(group)),
            *(
                Finding(printable(report.path), "remark", remark)
                for report in self.reports
                for remark in report.all_remarks()
            ),
            *(Finding(path, "skipped", reason) for path, reason in self.listing.skipped),
            *(finding._replace(path=printable(finding.path)) for finding in self.labels),
        ]

    def skips(self) -> dict[str, str]:
        """Return which files to leave out, by names relative to the data, and why.

        Those are the files that are no images, those that the manifest does not know so, exact
        copies beyond one, and pictures under several classes. What is in the skip list stays there.
        """
        reasons = {printable(path): text for path, text in to_leave_out(self.copies).items()}
        reasons |= {path: text for path, text in self.changed if manifest.is_damage(text)}
        reasons |= dict(self.bad)
        names = self.listing.names(reasons)
        found = dict(zip(map(normal, names), reasons.values(), strict=True))
        return skip_list.read_skip_list(self.listing.folder or ".") | found

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the findings, a line for each file and reason."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "kind", "reason"])
            writer.writerows(map(csv_cell, finding) for finding in self.findings())

    def write_skips(self) -> str:
        """Write the skip list and return its path; no image is moved or deleted."""
        return skip_list.write_skip_list(self.listing.folder or ".", self.skips())

    def to_dict(self) -> dict[str, object]:
        """Return plain values that JSON can hold."""
        readable = {report.path for report in self.reports}
        entries = [entry for entry in self.listing.entries if entry.path in readable]
        counts = Counter(normal(entry.label) for entry in entries)
        return {
            "source": self.source,
            "accepted": self.is_accepted,
            "num_files": self.listing.num_files,
            "num_images": len(entries),
            "splits": dict(Counter(entry.part for entry in entries)),
            "classes": {name: counts[name] for name in order_classes(counts, None)},
            "formats": dict(Counter(report.format for report in self.reports)),
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [finding._asdict() for finding in self.findings()],
        }


def inspect_images(
    source: str,
    *,
    options: DataOptions = NO_OPTIONS,
    manifest_path: str | None = None,
    max_pixels: int = scan.MAX_PIXELS,
    verbose: bool = False,
) -> Inspection:
    """Check every file of a folder or table as `load_data` does, and find copies.

    Args:
        source: A folder or a `.csv` file, as `load_data` takes it.
        options: How to read it.
        manifest_path: A manifest of SHA-256 sums: checked when it is there, else written.
        max_pixels: The most pixels, `height * width`, that an image may have.
        verbose: Whether a terminal shows a bar.

    Returns:
        An `Inspection`.

    Raises:
        DataError: There is no such folder or table, or the table or manifest cannot be read.
    """
    listing = _list(source, options)
    paths = list(dict.fromkeys(entry.path for entry in listing.entries))
    bits = options.bit_depth
    with step("Checking the images", len(paths), shown=verbose) as advance:
        reports, bad = scan.scan_files(
            paths, max_pixels=max_pixels, sums=True, rules=options.rules, progress=advance
        )
    by_path = {report.path: report for report in reports}
    items = items_of(listing.entries, by_path)
    exact, near = exact_copies(items), near_copies(items)
    errors, warnings = _check(listing, items)
    return Inspection(
        source,
        listing,
        reports,
        listing.bad + bad,
        exact + near,
        _check_manifest(manifest_path, listing, by_path),
        errors,
        [*listing.warnings, *warnings, *range_warnings(reports, bits), *warnings_of(exact)],
    )


def _list(source: str, options: DataOptions) -> Listing:
    source = remote.local_copy(source) if remote.is_remote(source) else source
    if is_table(source):
        return list_table(source, options)
    if os.path.isdir(source):
        return list_folder(source)
    raise DataError(
        f"A scan reads the files of a folder or of a .csv table. Received: {source!r}, which "
        f"is {'neither' if os.path.exists(source) else 'not there'}. Other data is checked "
        "when you load it."
    )


def _check(listing: Listing, items: list[Item]) -> tuple[list[str], list[str]]:
    """Return why the data cannot be used, and what is unusual about their classes."""
    if listing.errors:
        return listing.errors, []
    names = order_classes((entry.label for entry in listing.entries), None)
    numbers = class_places((entry.label for entry in listing.entries), names)
    labels = {
        part: np.array([numbers[item.label] for item in items if item.part == part], np.int64)
        for part in dict.fromkeys(["train", *(entry.part for entry in listing.entries)])
    }
    try:
        return [], check_classes(labels, names)
    except DataError as error:
        return [str(error)], []


def _check_manifest(
    path: str | None, listing: Listing, by_path: Mapping[str, FileReport]
) -> list[BadFile]:
    if path is None:
        return []
    sums = {
        os.path.relpath(report.path, listing.folder or "."): report.sha256
        for report in by_path.values()
    }
    if not os.path.exists(path):
        manifest.write_manifest(path, sums)
        return []
    left_out = skip_list.read_skip_list(listing.folder or ".")
    expected = manifest.read_manifest(path)
    known = {name: digest for name, digest in expected.items() if normal(name) not in left_out}
    changed = manifest.compare(known, sums)
    return [
        BadFile(printable(os.path.join(listing.folder, name)), reason) for name, reason in changed
    ]


def _of_copies(group: Copies) -> list[Finding]:
    """Say of each item of a group what the first is to it; of the first, what the second is."""
    kind, word = ("copy", "a copy of") if group.exact else ("alike", "looks like")
    notes = [", in another part of the data"] * group.is_leak
    notes += [", under another class"] * group.is_conflict
    first, second = group.items[:2]
    others = [second, *[first] * (len(group.items) - 1)]
    return [
        Finding(printable(item.path), kind, f"{word} {printable(other.path)}{''.join(notes)}")
        for item, other in zip(group.items, others, strict=True)
    ]
