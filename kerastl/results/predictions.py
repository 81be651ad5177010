"""What a model answered about labelled images, image by image."""

import abc
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from kerastl.results.measures import (
    NUM_BINS,
    confidence_bins,
    image_losses,
    measures,
    share_interval,
)


@dataclass(frozen=True, eq=False)
class BasePredictions(abc.ABC):
    """Answers about labelled images, and what can be read off them whatever the task.

    Args:
        labels: as `Split` has them, `(num_images,)` or `(num_images, num_outputs)`.
        outputs: of the model, `(num_images, num_outputs)`.
        class_names: one name an output.
        paths: a file an image, or None where they are no files.
    """

    labels: np.ndarray
    outputs: np.ndarray
    class_names: list[str]
    paths: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abc.abstractmethod
    def losses(self) -> np.ndarray:
        """How wrong the answer about each image is, `(num_images,)`."""

    @abc.abstractmethod
    def measures(self) -> dict[str, Any]:
        """Return what `evaluate` returns."""

    @abc.abstractmethod
    def texts(self, index: int) -> tuple[str, str]:
        """Return the truth about one image, and the answer."""

    def columns(self, index: int) -> dict[str, Any]:
        """Return what `to_csv` has of one image beside its row."""
        return {}

    def summary(self) -> dict[str, Any]:
        """Return what the page shows of all answers together."""
        return {}

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
        """Return the rows of the images that were answered worst, worst first.

        Args:
            most: so many images at most.
        """
        worst = np.argsort(-self.losses, kind="stable")[:most]
        return [self.row(int(index)) for index in worst]

    def to_csv(self) -> str:
        """Return a row an image, in their order."""
        text = io.StringIO()
        rows = [{**self.row(index), **self.columns(index)} for index in range(len(self))]
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["index"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class Predictions(BasePredictions):
    """Answers of a classifier about labelled images, and what can be read off them.

    Args:
        labels: ints `(num_images,)`, 0 to `num_classes - 1`.
        outputs: probabilities `(num_images, num_classes)`, each row of sum 1.
        class_names: one name a class.
        paths: a file an image, or None where they are no files.
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

    def measures(self) -> dict[str, Any]:
        """Return what `evaluate` returns."""
        return measures(self.labels, self.probabilities)

    def confusion(self) -> np.ndarray:
        """Return how many images of each class (rows) got each answer (columns), ints."""
        classes = np.arange(self.probabilities.shape[1])
        return np.asarray(confusion_matrix(self.labels, self.answers, labels=classes))

    def most_confused(self, most: int = 10) -> list[dict[str, Any]]:
        """Return the pairs of a class and a wrong answer that occurred most often.

        Args:
            most: so many pairs at most.

        Returns:
            Rows of `label`, `answer`, `count` and `share` of the images of the label with its
            95 % `interval`, the most frequent first.
        """
        matrix = self.confusion()
        totals = matrix.sum(1)
        wrong = matrix - np.diag(np.diag(matrix))
        rows = []
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
                    "interval": share_interval(count, total),
                }
            )
        return rows

    def texts(self, index: int) -> tuple[str, str]:
        """Return the class of an image and the one answered."""
        return self.class_names[self.labels[index]], self.class_names[self.answers[index]]

    def row(self, index: int) -> dict[str, Any]:
        """Return what was answered about one image.

        Returns:
            `index` among the images, `path`, `label`, `answer`, `probability` of the answer,
            `probability_of_label` and `loss`.
        """
        label, answer = int(self.labels[index]), int(self.answers[index])
        row = super().row(index)
        loss = row.pop("loss")
        return {
            **row,
            "probability": float(self.probabilities[index, answer]),
            "probability_of_label": float(self.probabilities[index, label]),
            "loss": loss,
        }

    def surest(self, most: int) -> list[int]:
        """Return the places of the surest right answers, of as many classes as there are."""
        certainty = self.probabilities.max(1)
        right = np.flatnonzero(self.answers == self.labels)
        right = right[np.argsort(-certainty[right], kind="stable")]
        _, first = np.unique(self.labels[right], return_index=True)
        others = np.setdiff1d(np.arange(len(right)), first)
        found: list[int] = right[np.concatenate([np.sort(first), others])][:most].tolist()
        return found

    def summary(self) -> dict[str, Any]:
        """Return the confusions and how often answers of like confidence were right."""
        return {
            "confusion": self.confusion().tolist(),
            "most_confused": self.most_confused(),
            "reliability": self.reliability(),
        }

    def reliability(self) -> list[dict[str, Any]]:
        """Return how often answers of like confidence were right, in 15 equal bins.

        Returns:
            Rows of `confidence` (its mean), `accuracy`, its 95 % `interval` and `num_images`, of
            the bins that hold images.
        """
        bins, confidence = confidence_bins(self.probabilities), self.probabilities.max(1)
        right = self.answers == self.labels
        rows = []
        for number in range(NUM_BINS):
            inside = bins == number
            if inside.any():
                count, num_right = int(inside.sum()), int(right[inside].sum())
                rows.append(
                    {
                        "confidence": float(confidence[inside].mean()),
                        "accuracy": num_right / count,
                        "interval": share_interval(num_right, count),
                        "num_images": count,
                    }
                )
        return rows


def most_probable(
    probabilities: np.ndarray, class_names: Sequence[str], count: int
) -> list[dict[str, Any]]:
    """Return `label` and `probability` of the most probable outputs about one image.

    Args:
        probabilities: `(num_outputs,)`.
        class_names: one name an output.
        count: how many.
    """
    return [
        {"label": class_names[index], "probability": float(probabilities[index])}
        for index in probabilities.argsort()[::-1][:count]
    ]
