"""Shared by tasks whose labels are a row of numbers per image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kerastl._measure import Measure, headlines
from kerastl._task import Labels, Names, Task
from kerastl.data.classes import check_printable
from kerastl.data.loaded import join_names
from kerastl.errors import ArgumentError, DataError

TRUE_COLUMN = "true "
DEVIATIONS_OF_A_GUESS = 3.09
"""So far from its mean is one of 1,000 draws of a normal distribution."""


class RowTask(Task):
    """A task whose labels are float32 `(n, num_outputs)`.

    Attributes:
        label_shape: what `y` must hold, for errors.
        row_measures: those of `measures` that a terminal of 80 columns holds beside each other.
    """

    label_shape: str
    row_measures: tuple[Measure, ...]
    answer_column: str  # of `to_csv`, before the name of an output; `TRUE_COLUMN` is that of labels

    def describe_names(self, class_names: Names) -> str:
        """Return how many outputs there are, and their names."""
        return f"{self.count(len(class_names))} ({join_names(class_names)})"

    def table_labels(self, entries: Sequence[Any], names: Names) -> np.ndarray:
        """Return the numbers of the rows of a table."""
        return np.array([entry.targets for entry in entries], np.float32)

    def array_labels(
        self, labels: Labels, class_names: Names | None, own_names: Names | None = None
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the labels of each part as float32, and the names given or those by default."""
        rows = {part: self.check_rows(values, part) for part, values in labels.items()}
        counts = {values.shape[1] for values in rows.values()}
        if len(counts) > 1:
            raise DataError(
                f"All parts must have the same number of {self.plural} per image. Received: "
                f"{sorted(counts)}. Give each part the same columns."
            )
        count = counts.pop()
        if class_names is None:
            return rows, self.default_names(count)
        if len(class_names) != count:
            raise DataError(
                f"`class_names` must name the {count} columns of `y`. Received "
                f"{len(class_names)}: {join_names(class_names)}. Pass a name for each "
                "column."
            )
        return rows, [str(name) for name in class_names]

    def default_names(self, count: int) -> list[str]:
        """Return the names of the columns of an array that has none."""
        return [str(place) for place in range(count)]

    def check_rows(self, values: np.ndarray, part: str) -> np.ndarray:
        """Return the labels of arrays as float32 `(n, num_outputs)`."""
        received = f"Received: shape {values.shape}, dtype {values.dtype} in {part}."
        if values.ndim != 2 or values.dtype.kind not in "uifb" or 0 in values.shape:
            raise DataError(
                f"With task={self.name!r}, `y` must be numbers: {self.label_shape}. "
                f"{received} Pass one row per image."
            )
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise DataError(
                f"Targets must be finite. {received} Row {row} is {values[row].tolist()}. Remove "
                "the images without a target."
            )
        return values

    def given_labels(self, labels: Any, num_outputs: int) -> np.ndarray:
        """Return the rows, which must have a number for each output of the model."""
        rows = self.check_rows(np.asarray(labels), "the data")
        if rows.shape[1] != num_outputs:
            raise ArgumentError(
                f"The model predicts {self.count(num_outputs)}, the data has "
                f"{rows.shape[1]}. Pass the columns that the model was trained on."
            )
        return rows

    def check_names(self, names: Names) -> None:
        """Raise a `DataError` unless the names of the outputs are different and printable."""
        check_printable(names)
        if not names or len(set(names)) < len(names):
            raise DataError(
                f"The {self.plural} need different names. Received: {join_names(names)}. "
                "Pass `class_names`."
            )

    def scores_of_rows(self, rows: Sequence[Mapping[str, str]]) -> np.ndarray:
        """Return the scores of what the columns of labels and answers hold."""
        true_columns = [name for name in rows[0] if name.startswith(TRUE_COLUMN)]
        names = [name.removeprefix(TRUE_COLUMN) for name in true_columns]
        if not names:
            raise KeyError(f"{TRUE_COLUMN}NAME")
        labels = [[float(row[name]) for name in true_columns] for row in rows]
        outputs = [[float(row[self.answer_column + name]) for name in names] for row in rows]
        return self.image_scores(np.array(labels, "float32"), np.array(outputs))

    def beats_guess(self, scores: np.ndarray, labels: np.ndarray) -> bool:
        """Return whether the mean lies so many standard errors above the score of a guess."""
        error = scores.std() / max(1, len(scores) - 1) ** 0.5
        return bool(scores.mean() - self.guess(labels) > DEVIATIONS_OF_A_GUESS * error)

    def kept_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return the score of each image that selects epochs, higher is better, `(n,)`."""
        raise NotImplementedError

    def epoch_score(self, logs: Mapping[str, Any]) -> float:
        """Return the mean of `kept_scores` by the logs of an epoch."""
        raise NotImplementedError

    def keep_criterion(
        self, predict: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, Any]:
        """Go by the mean score of the images, which must rise by a standard error."""
        scores = self.kept_scores(*predict()).astype("float64")
        least = float(scores.mean() + scores.std() / len(scores) ** 0.5)
        return {"score": self.epoch_score, "least": least}

    def measure_columns(self) -> list[str]:
        """Return the titles of `measure_cells`."""
        first, *others = (measure.title for measure in self.row_measures)
        return [first, "95 % interval", *others, "images"]

    def measure_cells(self, measures: Mapping[str, Any]) -> list[str]:
        """Return the first measure, its interval, the others, and how many images there are."""
        first, *others = headlines(measures, self.row_measures, percent=False)
        values = [one.value for one in others]
        return [first.value, first.interval, *values, f"{measures['num_images']:,}"]
