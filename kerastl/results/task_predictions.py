"""What a model of several labels, or of numbers, answered about images, image by image."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastl.results.label_measures import THRESHOLD, label_losses, label_measures
from kerastl.results.value_measures import value_measures


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """Answers about images with their labels or targets; what both tasks share.

    Args:
        labels: `(num_images, num_outputs)`: 0 and 1, or numbers.
        outputs: of the model, `(num_images, num_outputs)`: probabilities, or numbers.
        class_names: of the labels or targets.
        paths: a file an image, or None where they are no files.
    """

    labels: np.ndarray
    outputs: np.ndarray
    class_names: list[str]
    paths: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def losses(self) -> np.ndarray:
        """How wrong the answer about each image is, `(num_images,)`."""
        raise NotImplementedError

    def measures(self) -> dict[str, Any]:
        """Return what `evaluate` returns."""
        raise NotImplementedError

    def texts(self, index: int) -> tuple[str, str]:
        """Return the truth about one image, and the answer."""
        raise NotImplementedError

    def columns(self, index: int) -> dict[str, Any]:
        """Return what `to_csv` has of one image beside its row."""
        raise NotImplementedError

    def row(self, index: int) -> dict[str, Any]:
        """Return `index`, `path`, `label` and `answer` as texts, and `loss` of one image."""
        label, answer = self.texts(index)
        return {
            "index": index,
            "path": None if self.paths is None else self.paths[index],
            "label": label,
            "answer": answer,
            "loss": float(self.losses[index]),
        }

    def top_losses(self, most: int = 10) -> list[dict[str, Any]]:
        """Return the rows of the images that were answered worst, worst first."""
        worst = np.argsort(-self.losses, kind="stable")[:most]
        return [self.row(int(index)) for index in worst]

    def to_csv(self) -> str:
        """Return a row an image, in their order, with a column an output."""
        text = io.StringIO()
        rows = [{**self.row(index), **self.columns(index)} for index in range(len(self))]
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["index"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class LabelPredictions(TaskPredictions):
    """Which labels a model answered, and how probable it held each."""

    @property
    def answers(self) -> np.ndarray:
        """Which labels are more probable than not, bool `(num_images, num_labels)`."""
        return np.asarray(self.outputs > THRESHOLD)

    @property
    def losses(self) -> np.ndarray:
        """The mean binary cross-entropy of each image in nats, `(num_images,)`."""
        return label_losses(self.labels, self.outputs)

    def measures(self) -> dict[str, Any]:
        """Return what `evaluate` returns."""
        return label_measures(self.labels, self.outputs)

    def texts(self, index: int) -> tuple[str, str]:
        """Return the labels of an image and those answered, parted by `|`."""
        return self._joined(self.labels[index] > 0.5), self._joined(self.answers[index])

    def columns(self, index: int) -> dict[str, Any]:
        """Return the probability of each label."""
        named = zip(self.class_names, self.outputs[index].tolist(), strict=True)
        return {f"probability of {name}": value for name, value in named}

    def _joined(self, chosen: np.ndarray) -> str:
        return "|".join(self.class_names[place] for place in np.flatnonzero(chosen)) or "no label"


class ValuePredictions(TaskPredictions):
    """Which numbers a model answered."""

    @property
    def losses(self) -> np.ndarray:
        """The mean squared error of each image, each target in its own deviation, `(n,)`."""
        deviation = self.labels.std(0)
        gaps = (self.outputs - self.labels) / np.where(deviation > 0, deviation, 1)
        return np.asarray((gaps.astype("float64") ** 2).mean(1))

    def measures(self) -> dict[str, Any]:
        """Return what `evaluate` returns."""
        return value_measures(self.labels, self.outputs)

    def texts(self, index: int) -> tuple[str, str]:
        """Return the numbers of an image and those answered, named where there are several."""
        return self._named(self.labels[index]), self._named(self.outputs[index])

    def columns(self, index: int) -> dict[str, Any]:
        """Return the true and the predicted value of each target."""
        truth = zip(self.class_names, self.labels[index].tolist(), strict=True)
        values = zip(self.class_names, self.outputs[index].tolist(), strict=True)
        true_columns = {f"true {name}": value for name, value in truth}
        return true_columns | {f"predicted {name}": value for name, value in values}

    def _named(self, values: np.ndarray) -> str:
        if len(values) == 1:
            return f"{values[0]:.4g}"
        return ", ".join(f"{n} {v:.4g}" for n, v in zip(self.class_names, values, strict=True))
