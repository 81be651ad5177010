"""What the reader of one kind of source hands to `load_data`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kerastl.errors import BadFile, DataError

if TYPE_CHECKING:  # a listing needs no TensorFlow
    from kerastl.data.split import Split

PARTS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""The names of parts in folders and tables, and what kerastl calls them."""


@dataclass(frozen=True)
class SourceParts:
    """The parts that a source names: "train" alone when it has no split of its own."""

    parts: "dict[str, Split]"
    class_names: list[str]
    skipped: list[BadFile] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def order_classes(
    found: Iterable[str], class_names: Sequence[str] | None, *, as_numbers: bool = False
) -> list[str]:
    """Return the classes in the order asked for, else sorted, as numbers where they are some."""
    names = sorted(set(found))
    if class_names is not None:
        check_known_classes(class_names, names)
        return list(class_names)
    try:
        return sorted(names, key=int) if as_numbers else names
    except ValueError:
        return names


def check_known_classes(expected: Sequence[str], found: Sequence[str]) -> None:
    """Raise a `DataError` that names the classes found that are not expected."""
    unknown = [name for name in found if name not in expected]
    if unknown:
        raise DataError(
            f"The classes must be {join_names(expected)}. Received besides: {join_names(unknown)}. "
            "Rename or remove the classes that differ."
        )


def check_classes(
    labels: Mapping[str, np.ndarray], class_names: Sequence[str], *, absent_is_error: bool = True
) -> list[str]:
    """Raise unless there is something to learn; return warnings about absent classes.

    Args:
        labels: The labels `(n,)` of each part.
        class_names: What they are called.
        absent_is_error: Whether a class must have an image to train on.
    """
    check_printable(class_names)
    if len(class_names) < 2:
        raise DataError(
            "Classification needs at least two classes. Received: "
            f"{join_names(class_names)}. Add images of another class."
        )
    absent = {}
    for part, values in labels.items():
        counts = np.bincount(values, minlength=len(class_names))
        absent[part] = [name for name, n in zip(class_names, counts, strict=True) if not n]
    if absent["train"] and absent_is_error:
        raise DataError(
            "Every class needs an image to train on. Received none of: "
            f"{join_names(absent['train'])}. Add images of them or remove the classes."
        )
    return [f"no image of {join_names(names)} in {part}" for part, names in absent.items() if names]


def check_printable(class_names: Sequence[str]) -> None:
    """Raise a `DataError` unless names can stand in a file line by line."""
    unprintable = [name for name in class_names if not name.isprintable()]
    if unprintable:
        raise DataError(
            "Class names must be printable, since they stand in a file line by line. Received: "
            f"{unprintable!r}. Rename the classes."
        )


def join_names(names: Sequence[object], most: int = 10) -> str:
    """Return names as text, the first few of a long list."""
    if not names:
        return "none"
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name) for name in names[:most]) + rest
