"""The predictions of a model for labelled images."""

import abc
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from kerastl._checks import check_packages
from kerastl._shown import Shown
from kerastl._task import Told
from kerastl._typed import typed
from kerastl.data.file_report import csv_cell
from kerastl.results.measures import (
    Measured,
    confidence_bins,
    image_losses,
    measures,
    share_interval,
)
from kerastl.results.run_files import Json
from kerastl.results.run_shapes import Answer, ConfidenceBin, Confusion


@dataclass(frozen=True, eq=False, repr=False)
class BasePredictions(Shown):
    """Answers about labelled images, and what can be read off them whatever the task."""

    labels: np.ndarray  # as `Split` has them, `(num_images,)` or `(num_images, num_outputs)`
    outputs: np.ndarray  # of the model, `(num_images, num_outputs)`
    class_names: list[str]  # one an output
    paths: list[str] | None = None  # a file an image; None where they are no files

    def __len__(self) -> int:
        return len(self.labels)

    def _in_short(self) -> str:
        return f"{len(self):,} images, {len(self.class_names)} outputs"

    @property
    @abc.abstractmethod
    def losses(self) -> np.ndarray:
        """How wrong the answer about each image is, `(num_images,)`."""

    @abc.abstractmethod
    def measures(self) -> Measured:
        """Return what `evaluate` returns."""

    @abc.abstractmethod
    def texts(self, index: int) -> tuple[str, str]:
        """Return the truth about one image, and the answer."""

    def columns(self, index: int) -> dict[str, float]:
        """Return what `to_csv` has of one image beside its row."""
        return {}

    def summary(self) -> Json:
        """Return what the page shows of all answers together."""
        return {}

    def row(self, index: int) -> Answer:
        """Return what was answered about one image."""
        label, answer = self.texts(index)
        return {
            "index": index,
            "path": None if self.paths is None else self.paths[index],
            "label": label,
            "answer": answer,
            "loss": float(self.losses[index]),
        }

    def top_losses(self, most: int = 10) -> list[Answer]:
        """Return the rows of the images with the largest loss, worst first."""
        worst = np.argsort(-self.losses, kind="stable")[:most]
        return [self.row(int(index)) for index in worst]

    def _rows(self) -> list[Json]:
        return [{**self.row(index), **self.columns(index)} for index in range(len(self))]

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` of a row an image, in their order (extra `pandas`)."""
        check_packages("`to_frame`", ["pandas"], "pandas")
        import pandas

        return pandas.DataFrame(self._rows())

    def to_csv(self) -> str:
        """Return a row an image, in their order."""
        text, rows = io.StringIO(), self._rows()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["index"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(cell) for name, cell in row.items()} for row in rows)
        return text.getvalue()


@typed
class Predictions(BasePredictions):
    """Predictions of a classifier for labelled images.

    Args:
        labels: ints `(num_images,)`, 0 to `num_classes - 1`.
        outputs: probabilities `(num_images, num_classes)`, each row of sum 1.
        class_names: one name per class.
        paths: one path per image, or None if the images are not files.
    """

    @property
    def probabilities(self) -> np.ndarray:
        """The probability of each class, `(num_images, num_classes)`."""
        return self.outputs

    @property
    def answers(self) -> np.ndarray:
        """The most probable class of each image, ints `(num_images,)`."""
        return np.asarray(self.probabilities.argmax(1))

    @property
    def losses(self) -> np.ndarray:
        """The cross-entropy of each image in nats, `(num_images,)`."""
        return image_losses(self.labels, self.probabilities)

    def measures(self) -> Measured:
        """Return what `evaluate` returns."""
        return measures(self.labels, self.probabilities)

    def confusion(self) -> np.ndarray:
        """Return the confusion matrix, ints: true classes in rows, predictions in columns."""
        classes = np.arange(self.probabilities.shape[1])
        return np.asarray(confusion_matrix(self.labels, self.answers, labels=classes))

    def most_confused(self, most: int = 10) -> list[Confusion]:
        """Return the most frequent pairs of a class and a wrong prediction."""
        matrix = self.confusion()
        totals = matrix.sum(1)
        wrong = matrix - np.diag(np.diag(matrix))
        rows: list[Confusion] = []
        for place in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            label, answer = divmod(int(place), len(matrix))
            count, total = int(wrong[label, answer]), int(totals[label])
            if count == 0:
                break
            rows.append(
                {
                    "label": self.class_names[label],
                    "answer": self.class_names[answer],
                    "count": count,
                    "share": count / total,
                    "interval": share_interval(count, total),  # type: ignore[typeddict-item]
                }
            )
        return rows

    def texts(self, index: int) -> tuple[str, str]:
        """Return the label and the prediction of an image."""
        return self.class_names[self.labels[index]], self.class_names[self.answers[index]]

    def row(self, index: int) -> Answer:
        """Return the prediction for one image, with its probabilities."""
        row, of_image = super().row(index), self.probabilities[index]
        return {
            "index": index,
            "path": row["path"],
            "label": row["label"],
            "answer": row["answer"],
            "probability": float(of_image[self.answers[index]]),
            "probability_of_label": float(of_image[self.labels[index]]),
            "loss": row["loss"],
        }

    def surest(self, most: int) -> list[int]:
        """Return the indices of the most confident correct predictions, spread over the classes."""
        certainty = self.probabilities.max(1)
        right = np.flatnonzero(self.answers == self.labels)
        right = right[np.argsort(-certainty[right], kind="stable")]
        _, first = np.unique(self.labels[right], return_index=True)
        others = np.setdiff1d(np.arange(len(right)), first)
        found: list[int] = right[np.concatenate([np.sort(first), others])][:most].tolist()
        return found

    def summary(self) -> Json:
        """Return the confusion matrix and the calibration."""
        return {
            "confusion": self.confusion().tolist(),
            "most_confused": self.most_confused(),
            "reliability": self.reliability(),
        }

    def reliability(self) -> list[ConfidenceBin]:
        """Return one row per non-empty bin of 15 equal bins of confidence."""
        bins, confidence = confidence_bins(self.probabilities), self.probabilities.max(1)
        right = self.answers == self.labels
        rows: list[ConfidenceBin] = []
        for number in np.unique(bins):
            inside = bins == number
            count, num_right = int(inside.sum()), int(right[inside].sum())
            rows.append(
                {
                    "confidence": float(confidence[inside].mean()),
                    "accuracy": num_right / count,
                    "interval": share_interval(num_right, count),  # type: ignore[typeddict-item]
                    "num_images": count,
                }
            )
        return rows


def spread(count: int, most: int) -> np.ndarray:
    """Return up to `most` different places, evenly from `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def most_probable(probabilities: np.ndarray, class_names: Sequence[str], count: int) -> list[Told]:
    """Return `label` and `probability` of the most probable outputs `(num_outputs,)`, so many."""
    return [
        {"label": class_names[index], "probability": float(probabilities[index])}
        for index in probabilities.argsort()[::-1][:count]
    ]
