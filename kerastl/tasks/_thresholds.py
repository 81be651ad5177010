"""Thresholds of labels, chosen on validation images."""

import json
import math

import numpy as np

from kerastl.errors import DataError
from kerastl.tasks._label_measures import THRESHOLD

LEAST_WITH = 10
"""Of fewer validation images that have a label, or have it not, nothing is chosen."""


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """Return the threshold of each label whose F1 is highest.

    Of the cuts between two images the one of the highest F1 on them, in the middle: where
    probabilities are right, that is half the F1 itself (Lipton, Elkan and Narayanaswamy 2014,
    https://arxiv.org/abs/1402.1892), below one half. A label that fewer than `LEAST_WITH` images
    have, or lack, keeps one half: the best of many cuts of a few images is so by luck.

    Args:
        labels: 0 and 1 `(num_images, num_labels)`.
        probabilities: `(num_images, num_labels)`.
    """
    columns = zip(labels.T > 0.5, probabilities.T.astype("float64"), strict=True)
    return [_best_threshold(*column) for column in columns]


def _best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    if min(truth.sum(), (~truth).sum()) < LEAST_WITH:
        return THRESHOLD
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(truth[order])
    answered = np.arange(1, len(truth) + 1)
    f1 = 2 * right / (answered + truth.sum())
    below = np.append(scores[1:], 0.0)
    f1[scores == below] = -1.0  # no cut parts equal scores
    best = int(f1.argmax())
    return float((scores[best] + below[best]) / 2)


def threshold_of_cost(cost: float) -> float:
    """Return the threshold for a cost of missed labels relative to wrong ones.

    1 / (1 + cost), where probabilities are right (Elkan 2001, The Foundations of Cost-Sensitive
    Learning).
    """
    return 1 / (1 + cost)


def read_thresholds(text: str) -> np.ndarray:
    """Return thresholds `(num_labels,)` float32 from a JSON list, as a file has them."""
    found = json.loads(text)
    are_shares = isinstance(found, list) and all(
        isinstance(one, (int, float)) and math.isfinite(one) and 0 <= one <= 1 for one in found
    )
    if not are_shares or not found:
        raise DataError(
            "Thresholds must be a list of numbers from 0 to 1, one per label. Received: "
            f"{text!r:.80}. Export the model again."
        )
    return np.array(found, "float32")
