"""Reads YOLO detection sets, `images/` and `labels/` with a `data.yaml`, as a table of classes."""

import os
from typing import Any

from kerastl._checks import check_packages
from kerastl.data.exports import Table
from kerastl.data.listing import is_junk
from kerastl.data.parts import part_of
from kerastl.errors import DataError

ENDINGS = (".yaml", ".yml")
_IMAGES, _LABELS = "images", "labels"
_WAY_OUT = "Export it again as YOLO, or pass a CSV."


def description_in(folder: str) -> str | None:
    """Return the `.yaml` of a folder of a YOLO set, or None of another folder."""
    found = sorted(name for name in os.listdir(folder) if name.lower().endswith(ENDINGS))
    if len(found) != 1 or not any(_LABELS in names for _, names, _ in os.walk(folder)):
        return None
    return os.path.join(folder, found[0])


def read_yolo(path: str) -> Table:
    """Read the classes of the boxes of each image: a row each, and one for an image without.

    The labels of `images/.../NAME.jpg` stand in `labels/.../NAME.txt`; the part is told by the
    folders, `train/images/` or `images/train/`. Paths in the `.yaml` are not followed.
    """
    home = os.path.dirname(path)
    names = _names(path)
    rows = []
    for folder, _, files in sorted(os.walk(home)):
        steps = os.path.relpath(folder, home).split(os.sep)
        if _IMAGES not in steps:
            continue
        at = len(steps) - 1 - steps[::-1].index(_IMAGES)
        part = next((part for step in steps if (part := part_of(step)) is not None), "train")
        labels = os.path.join(home, *steps[:at], _LABELS, *steps[at + 1 :])
        for file in sorted(name for name in files if not is_junk(name)):
            told = os.path.join(labels, os.path.splitext(file)[0] + ".txt")
            image = os.path.join(*steps, file)
            rows += [[image, name, part] for name in _classes(told, names) or [""]]
    if not rows:
        raise DataError(f"There is no image in a folder `images` beside {path!r}. {_WAY_OUT}")
    return Table(["image", "label", "split"], rows, path, 0, home)


def _names(path: str) -> dict[int, str]:
    check_packages("A set of YOLO", ["yaml"], "yolo")
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
        names: Any = found["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"The data.yaml of a YOLO dataset must have `names`. Received: {path!r} "
            f"({type(error).__name__}: {error}). {_WAY_OUT}"
        ) from None


def _classes(path: str, names: dict[int, str]) -> list[str]:
    """Return the classes of the boxes in a file of labels, each once; none where it is absent."""
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file]
    try:
        return list(dict.fromkeys(names[int(line[0])] for line in lines if line))
    except (ValueError, KeyError) as error:
        raise DataError(
            "Each line of a YOLO label file must start with the number of a class in "
            f"data.yaml. Received: {error} in {path!r}. Correct it."
        ) from None
