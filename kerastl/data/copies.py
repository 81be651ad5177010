"""Finds duplicate pictures, and those that affect training or measurement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kerastl.data.file_report import FileReport, printable
from kerastl.data.groups import join_by_keys
from kerastl.data.listing import Entry
from kerastl.data.near_duplicates import Print, group_near_duplicates


class Item(NamedTuple):
    """A picture of a class in a part of the data."""

    path: str
    part: str
    label: str
    content: str
    """Equal for equal bytes."""
    look: str = ""
    """As `FileReport.look`."""


@dataclass(frozen=True)
class Copies:
    """Items that show the same picture: byte for byte, or as far as a look can tell."""

    items: tuple[Item, ...]
    exact: bool

    @property
    def is_leak(self) -> bool:
        """Whether they are in several parts, so that a training image is in the test."""
        return len({item.part for item in self.items}) > 1

    @property
    def is_conflict(self) -> bool:
        """Whether they are in several classes."""
        return len({item.label for item in self.items}) > 1


def items_of(entries: Iterable[Entry], reports: Mapping[str, FileReport]) -> list[Item]:
    """Return the items of the entries that have a report, which are by path."""
    return [
        Item(entry.path, entry.part, entry.label, report.sha256 or str(report.content), report.look)
        for entry in entries
        if (report := reports.get(entry.path)) is not None
    ]


def exact_copies(items: Iterable[Item]) -> list[Copies]:
    """Return the groups of items of equal bytes, in the order of their first."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.content, []).append(item)
    return [Copies(tuple(group), True) for group in groups.values() if len(group) > 1]


def near_copies(items: Sequence[Item]) -> list[Copies]:
    """Return the groups of items that look alike and differ in bytes, in the order of items."""
    firsts = list({item.content: item for item in reversed(items)}.values())[::-1]
    groups = group_near_duplicates([item.look for item in firsts])
    return [Copies(tuple(firsts[place] for place in group), False) for group in groups]


def sides(contents: Sequence[str], looks: Sequence[str], named: Sequence[str]) -> np.ndarray:
    """Return ints `(n,)`, equal for pictures that stay on one side of a split.

    Those are copies, byte for byte or as far as a look can tell, and pictures of the same name of a
    group.

    Args:
        contents: equal for equal pictures.
        looks: as `near_duplicates.Print` has them.
        named: names of groups; empty for none.
    """
    keys: list[list[tuple[str, str]]] = [[("content", one)] for one in contents]
    for key, name in zip(keys, named, strict=True):
        key += [("name", name)] if name else []
    for number, places in enumerate(_alike(looks)):
        for place in places:
            keys[place].append(("look", str(number)))
    return join_by_keys(keys)


def _alike(looks: Sequence[str]) -> list[list[int]]:
    """Return the groups of places of pictures that look alike.

    Where a twentieth of all look alike, it is the kind of picture: none is a copy.
    """
    most = max(2, len(looks) // 20)
    return [places for places in group_near_duplicates(looks) if len(places) <= most]


def copies_of(prints: Sequence[Print], known: Sequence[Print]) -> tuple[np.ndarray, np.ndarray]:
    """Return bool `(n,)` twice: which pictures have the pixels of a known one, and near copies."""
    pictures = {one.picture for one in known}
    exact = np.array([one.picture in pictures for one in prints], bool)
    near = np.zeros(len(prints), bool)
    for places in _alike([one.look for one in [*prints, *known]]):
        mine = [place for place in places if place < len(prints)]
        near[mine] |= len(mine) < len(places)
    return exact, near & ~exact


def warn_of_leaks(prints: Mapping[str, list[Print]], *, are_told: bool = False) -> list[str]:
    """Warn of pictures of a part that are in one before it too, or look like one there.

    Args:
        prints: of each part.
        are_told: whether equal pictures are told of elsewhere.
    """
    warnings, known = [], prints["train"]
    for part in ("validation", "test"):
        mine = prints.get(part, [])
        exact, near = (int(found.sum()) for found in copies_of(mine, known))
        known = known + mine
        for count, what in ((0 if are_told else exact, "are"), (near, "look like images")):
            if count:
                warnings.append(
                    f"{count:,} of {len(mine):,} {part} images {what} in another part too, so the "
                    f"{part} figures are too good"
                )
    return warnings


def warnings_of(copies: Sequence[Copies]) -> list[str]:
    """Return a line for each kind of copies that are there, with a count and an example."""
    leaks = [group for group in copies if group.is_leak]
    conflicts = [group for group in copies if group.is_conflict]
    others = [group for group in copies if not group.is_leak and not group.is_conflict]
    texts = (
        (leaks, "pictures are in more than one part of the data, so the test result is too good"),
        (conflicts, "pictures are in more than one class"),
        (others, "pictures occur more than once"),
    )
    return [
        f"{len(groups)} {text} (such as "
        f"{' and '.join(printable(item.path) for item in groups[0].items[:2])})"
        for groups, text in texts
        if groups
    ]


def to_leave_out(copies: Iterable[Copies]) -> dict[str, str]:
    """Return which paths to leave out, so that no exact copies are left, and why.

    A picture in several classes is left out entirely, since its right class is unknown. Otherwise
    one copy is kept: of the test part, else of validation, else of training. Near copies stay.
    """
    reasons: dict[str, str] = {}
    for group in copies:
        if not group.exact:
            continue
        if group.is_conflict:
            labels = ", ".join(sorted({item.label for item in group.items}))
            reasons |= {item.path: f"under several classes: {labels}" for item in group.items}
            continue
        kept = min(group.items, key=lambda item: ("test", "validation", "train").index(item.part))
        for item in group.items:
            if item.path != kept.path:
                reasons[item.path] = f"a copy of {printable(kept.path)}"
    return reasons
