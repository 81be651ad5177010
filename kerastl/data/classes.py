"""Matches labels to classes, and sorts classes.

Names are compared in the Unicode form NFC, since macOS writes others; where all classes are whole
numbers, a label names that of its value.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kerastl.data.loaded import join_names
from kerastl.errors import DataError

UNEVEN = 10
"""Times as many images of one class as of another that are told."""
_WHOLE = re.compile(r"([+-]?[0-9]+)(\.0*)?")


def normal(name: str) -> str:
    """Return a name in the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def whole_number(text: str) -> int | None:
    """Return the value of a whole number, which pandas may have written as `3.0`, or None."""
    found = _WHOLE.fullmatch(text.strip())
    return int(found[1]) if found else None


def by_value(names: Iterable[str]) -> dict[int, str]:
    """Return the names by their values where all are whole numbers, each another one; else {}."""
    names = list(names)
    values = [whole_number(name) for name in names]
    found = {value: name for value, name in zip(values, names, strict=True) if value is not None}
    return found if len(found) == len(names) else {}


def order_classes(found: Iterable[str], class_names: Sequence[str] | None) -> list[str]:
    """Return the classes in the requested order, or sorted, with whole numbers by value."""
    names = sorted({normal(name) for name in found})
    if class_names is not None:
        class_places(names, class_names)
        return [normal(name) for name in class_names]
    values = by_value(names)
    return [values[value] for value in sorted(values)] or names


def class_places(found: Iterable[str], class_names: Sequence[str]) -> dict[str, int]:
    """Return the place among `class_names` of each name that was found.

    Raises:
        DataError: some name no class; those that look like one are pointed out.
    """
    places = {normal(name): place for place, name in enumerate(class_names)}
    values = {value: places[normal(name)] for value, name in by_value(class_names).items()}
    given = {name: places.get(normal(name), values.get(whole_number(name))) for name in set(found)}  # type: ignore[arg-type]
    unknown = sorted(name for name, place in given.items() if place is None)
    if unknown:
        raise DataError(
            f"The classes must be {join_names(class_names)}. Received in addition: "
            f"{join_names(unknown)}. {_hint(unknown, class_names)}Rename or remove the "
            "classes that differ."
        )
    return {name: place for name, place in given.items() if place is not None}


def value_places(values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return the places of whole numbers `(n,)` among classes that are whole numbers.

    Raises:
        DataError: a number is no class.
    """
    found = {value: str(value) for value in np.unique(values).tolist()}
    places = class_places(found.values(), class_names)
    return np.array([places[found[value]] for value in values.tolist()], np.int64)


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ by case, blanks, width or leading zeros alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_look(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def check_classes(
    labels: Mapping[str, np.ndarray], class_names: Sequence[str], *, absent_is_error: bool = True
) -> list[str]:
    """Raise unless there is something to learn; return warnings about classes.

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
        present = [name for name in class_names if name not in absent["train"]]
        raise DataError(
            "Every class needs at least one training image. Received none of: "
            f"{join_names(absent['train'])}. {_hint(absent['train'], present)}Add images of "
            "these classes, or remove the classes."
        )
    warnings = [
        (
            f"the classes {' and '.join(map(repr, group))} look alike; join them if they are the "
            "same class"
        )
        for group in look_alikes(class_names)
    ]
    warnings += [
        f"no image of {join_names(names)} in {part}{_WORTH[part]}"
        for part, names in absent.items()
        if names
    ]
    return warnings + _unbalanced(
        np.bincount(labels["train"], minlength=len(class_names)), class_names
    )


def _unbalanced(counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Warn of classes with one training image, and of many times as many of one as of another."""
    warnings = []
    lonely = [name for name, count in zip(class_names, counts, strict=True) if count == 1]
    if lonely:
        warnings.append(f"these classes have only one training image: {join_names(lonely)}")
    least, most = int(np.where(counts > 0, counts, counts.max()).argmin()), int(counts.argmax())
    if counts[most] >= UNEVEN * counts[least]:
        warnings.append(
            f"the classes are uneven: {class_names[most]} has {counts[most]:,} training images, "
            f"{class_names[least]} has {counts[least]:,}. A model that always predicts "
            f"{class_names[most]} is right for {counts[most] / counts.sum():.0%} of them: "
            "check the recall of each class and macro F1 instead of the accuracy, and consider "
            "`balance='auto'` in training"
        )
    return warnings


_WORTH = {
    "train": ", so the model cannot predict it",
    "validation": "",
    "test": ", so its accuracy is not known",
}


def check_printable(class_names: Sequence[str]) -> None:
    """Raise a `DataError` unless each name fits on a line of a file."""
    unprintable = [name for name in class_names if not name.isprintable()]
    if unprintable:
        raise DataError(
            "Class names must be printable, because labels.txt has one name per line. "
            f"Received: {unprintable!r}. Rename the classes."
        )


def _look(name: str) -> str:
    value = whole_number(name)
    plain = unicodedata.normalize("NFKC", name).casefold() if value is None else str(value)
    return "".join(plain.split())


def _hint(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Point out which unknown names look like known ones."""
    known = list(known)
    pairs = [
        f"{name!r} looks like {other!r}"
        for name in unknown
        for other in known
        if _look(name) == _look(other)
    ]
    return f"{join_names(pairs)}. " if pairs else ""
