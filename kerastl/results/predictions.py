"""What a classifier answered about labelled images, image by image."""

import csv
import io
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
class Predictions:
    """Answers about labelled images, and what can be read off them.

    Args:
        labels: ints `(num_images,)`, 0 to `num_classes - 1`.
        probabilities: floats `(num_images, num_classes)`, each row of sum 1.
        class_names: one name a class.
        paths: a file an image, or None where they are no files.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]
    paths: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

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

    def top_losses(self, most: int = 10) -> list[dict[str, Any]]:
        """Return the images whose label the model held least probable, worst first.

        Args:
            most: so many images at most.

        Returns:
            Rows of `index` among the images, `path`, `label`, `answer`, `probability` of the
            answer, `probability_of_label` and `loss`.
        """
        worst = np.argsort(-self.losses, kind="stable")[:most]
        return [self.row(int(index)) for index in worst]

    def row(self, index: int) -> dict[str, Any]:
        """Return what was answered about one image, as a row of `top_losses`."""
        label, answer = int(self.labels[index]), int(self.answers[index])
        return {
            "index": index,
            "path": None if self.paths is None else self.paths[index],
            "label": self.class_names[label],
            "answer": self.class_names[answer],
            "probability": float(self.probabilities[index, answer]),
            "probability_of_label": float(self.probabilities[index, label]),
            "loss": float(self.losses[index]),
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

    def to_csv(self) -> str:
        """Return a row an image, in their order, as `top_losses` has them."""
        text = io.StringIO()
        names = list(self.row(0)) if len(self) else ["index"]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.row(index) for index in range(len(self)))
        return text.getvalue()
