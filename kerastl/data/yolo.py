"""Reads YOLO detection sets, `images/` and `labels/` with a `data.yaml`, as a table of classes."""

import os
from typing import Any, NamedTuple

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
    names = class_names(path)
    rows = [
        [image.name, name, image.part]
        for image in images_of(path)
        for name in _classes(image, names) or [""]
    ]
    return Table(["image", "label", "split"], rows, path, 0, os.path.dirname(path))


class YoloImage(NamedTuple):
    """An image of a set, and the words of each line of its labels; none where they are absent."""

    home: str
    name: str  # its path there
    part: str
    labels: str
    lines: list[list[str]]


def images_of(path: str) -> list[YoloImage]:
    """Return the images of the set of a `data.yaml`."""
    home, images = os.path.dirname(path), []
    for folder, _, files in sorted(os.walk(home)):
        steps = os.path.relpath(folder, home).split(os.sep)
        if _IMAGES not in steps:
            continue
        at = len(steps) - 1 - steps[::-1].index(_IMAGES)
        part = next((part for step in steps if (part := part_of(step)) is not None), "train")
        labels = os.path.join(home, *steps[:at], _LABELS, *steps[at + 1 :])
        for file in sorted(name for name in files if not is_junk(name)):
            told = os.path.join(labels, os.path.splitext(file)[0] + ".txt")
            name = os.path.join(*steps, file)
            images.append(YoloImage(home, name, part, told, _lines(told)))
    if not images:
        raise DataError(f"There is no image in a folder `images` beside {path!r}. {_WAY_OUT}")
    return images


def class_names(path: str) -> dict[int, str]:
    """Return the classes of a `data.yaml` by their numbers."""
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


def _lines(path: str) -> list[list[str]]:
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return [words for line in file if (words := line.split())]


def _classes(image: YoloImage, names: dict[int, str]) -> list[str]:
    """Return the classes of the boxes of an image, each once."""
    try:
        return list(dict.fromkeys(names[int(line[0])] for line in image.lines))
    except (ValueError, KeyError) as error:
        raise DataError(
            "Each line of a YOLO label file must start with the number of a class in "
            f"data.yaml. Received: {error} in {image.labels!r}. Correct it."
        ) from None
