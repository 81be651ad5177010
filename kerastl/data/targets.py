"""Several labels, or numbers, of each image: read from text, checked, and grouped for a split."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kerastl.data.loaded import check_printable, listed
from kerastl.data.tasks import NOUNS
from kerastl.errors import DataError

DELIMITER = "|"  # fastai's usual `label_delim`, beside the space, which names have inside
NUM_BINS = 10
IMAGES_PER_BIN = 5
"""So many images of like targets, at least, are split alike."""


def labels_in(cell: str) -> tuple[str, ...]:
    """Return the labels of a cell, `"cat|on grass"`; none of an empty one."""
    names = [name.strip() for name in cell.split(DELIMITER)]
    return tuple(dict.fromkeys(name for name in names if name))


def marked(cells: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the columns of a row that hold 1; the others must hold 0.

    Args:
        cells: the text by the name of its column.
        where: of the row, for errors.
    """
    for name, cell in cells.items():
        if cell not in ("0", "1"):
            raise DataError(
                f"A column of a label must hold 1 (the image has it) or 0. Received: {cell!r} in "
                f"column {name!r}, {where}. Complete the cell, or name the columns of the labels "
                "with `label_column`."
            )
    return tuple(name for name, cell in cells.items() if cell == "1")


def numbers(cells: Mapping[str, str], where: str) -> tuple[float, ...]:
    """Return the numbers of a row, which must be finite; arguments as of `marked`."""
    found = []
    for name, cell in cells.items():
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"A target must be a finite number. Received: {cell!r} in column {name!r}, "
                f"{where}. Complete or remove the row, or name the columns of the targets with "
                "`label_column`."
            )
        found.append(value)
    return tuple(found)


def label_matrix(rows: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
    """Return float32 `(num_rows, num_names)`, 1 where a row has the label of that name."""
    places = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(names)), np.float32)
    for row, labels in enumerate(rows):
        matrix[row, [places[label] for label in labels]] = 1
    return matrix


def checked_array(values: np.ndarray, task: str, part: str) -> np.ndarray:
    """Return the targets of arrays as float32 `(n, num_targets)`.

    Args:
        values: of several labels 0 and 1 `(n, num_labels)`; of regression numbers `(n,)` or
            `(n, num_targets)`.
        task: `"multi_label"` or `"regression"`.
        part: of the data, for errors.
    """
    if task == "regression" and values.ndim == 1:
        values = values[:, np.newaxis]
    received = f"Received: shape {values.shape}, dtype {values.dtype} in {part}."
    if values.ndim != 2 or values.dtype.kind not in "uifb" or 0 in values.shape:
        shape = "0 and 1 (n, num_labels)" if task == "multi_label" else "(n,) or (n, num_targets)"
        raise DataError(
            f"With task={task!r}, `y` must be numbers: {shape}. {received} Pass one row an image."
        )
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise DataError(
            f"Targets must be finite. {received} Row {row} is {values[row].tolist()}. Remove the "
            "images without a target."
        )
    if task == "multi_label" and not np.isin(values, (0, 1)).all():
        row = int(np.flatnonzero(~np.isin(values, (0, 1)).all(1))[0])
        raise DataError(
            f"With task='multi_label', `y` must hold 0 and 1 alone. {received} Row {row} is "
            f"{values[row].tolist()}. Pass task='regression' for numbers."
        )
    return values


def array_names(count: int, task: str, class_names: Sequence[str] | None) -> list[str]:
    """Return the names given, or those that columns of arrays have by default."""
    if class_names is not None:
        if len(class_names) != count:
            raise DataError(
                f"`class_names` must name the {count} columns of `y`. Received {len(class_names)}: "
                f"{listed(class_names)}. Name each."
            )
        return [str(name) for name in class_names]
    if task == "regression" and count == 1:
        return ["value"]
    prefix = "value_" if task == "regression" else ""
    return [f"{prefix}{place}" for place in range(count)]


def strata(labels: np.ndarray, task: str) -> np.ndarray:
    """Return ints `(n,)`: images of one number give up the same share to a split.

    Several labels: the rarest of an image's labels, so that it is in each part; those without one
    are together. Numbers: ten bins of like size (fewer of less than 50 images) of the sum of the
    standardised targets. Classes: the class.

    Args:
        labels: as `Split` has them.
        task: of `TASKS`.
    """
    if task == "classification":
        return labels
    if task == "multi_label":
        counts = labels.sum(0)
        rarity = np.where(labels > 0, counts, np.inf)
        return np.where(labels.any(1), rarity.argmin(1), -1)
    deviation = labels.std(0)
    sums = ((labels - labels.mean(0)) / np.where(deviation > 0, deviation, 1)).sum(1)
    bins = max(1, min(NUM_BINS, len(sums) // IMAGES_PER_BIN))
    ranks = np.argsort(np.argsort(sums, kind="stable"), kind="stable")
    return np.asarray(ranks * bins // max(1, len(sums)))


def check_targets(labels: Mapping[str, np.ndarray], names: Sequence[str], task: str) -> list[str]:
    """Raise unless there is something to learn; return warnings.

    Args:
        labels: float32 `(n, num_targets)` of each part.
        names: of the labels or targets.
        task: `"multi_label"` or `"regression"`.
    """
    check_printable(names)
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"The {NOUNS[task]} need names, each its own. Received: {listed(names)}. Name them "
            "with `class_names`."
        )
    train = labels["train"]
    if task == "regression":
        constant = [
            name for name, spread in zip(names, np.ptp(train, 0), strict=True) if not spread
        ]
        if constant:
            raise DataError(
                "A target must differ between the images to train on. Received one value alone of: "
                f"{listed(constant)}. Remove the target or add images."
            )
        return []
    if not train.any():
        raise DataError(
            "No image to train on has a label. Add images that have some, or correct the labels."
        )
    warnings = [
        f"no image of {listed(absent)} in {part}"
        for part, values in labels.items()
        if (absent := [name for name, count in zip(names, values.sum(0), strict=True) if not count])
    ]
    always = [name for name, share in zip(names, train.mean(0), strict=True) if share == 1]
    if always:
        warnings.append(f"every image to train on has: {listed(always)}")
    if len(names) > 1 and (np.concatenate(list(labels.values())).sum(1) == 1).all():
        warnings.append(
            "each image has exactly one label: if no image can have more, task='classification' "
            "learns them better"
        )
    return warnings
