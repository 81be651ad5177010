"""How good answers are, in numbers, each with its 95 % interval."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

NUM_BINS = 15  # of Guo and others, 2017 (https://arxiv.org/abs/1706.04599)
NUM_DRAWS = 1000
TOP_K = 5  # ImageNet's
_DRAWN_AT_A_TIME = 4_000_000  # images, over all draws of a chunk
# What is not linear in the images, or no share of them, and the most that it can be.
_BOOTSTRAPPED = {
    "macro_precision": 1.0,
    "macro_recall": 1.0,
    "macro_f1": 1.0,
    "log_loss": np.inf,
    "brier": 2.0,
    "ece": 1.0,
}


def measures(labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Return the measures of `evaluate`.

    Args:
        labels: ints `(num_images,)`, 0 to `num_classes - 1`; at least one.
        probabilities: `(num_images, num_classes)`, each row of sum 1.
        seed: of the draws of the bootstrap.
    """
    num_images, num_classes = probabilities.shape
    probabilities = probabilities.astype("float64")
    probabilities /= probabilities.sum(1, keepdims=True)
    answers = probabilities.argmax(1)
    right = int((answers == labels).sum())
    k, num_in_top = _in_top(labels, probabilities)
    draws = _drawn(labels, probabilities, seed)
    values = {
        **_macro(labels, answers),
        "log_loss": float(log_loss(labels, probabilities, labels=np.arange(num_classes))),
        "brier": _brier(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
    }
    intervals = {
        name: centred_interval(draws[name], values[name], highest)
        for name, highest in _BOOTSTRAPPED.items()
    }
    accuracy_interval = share_interval(right, num_images)
    top = {"top_k": k, "top_k_accuracy": num_in_top / num_images}
    return {
        "accuracy": right / num_images,
        "accuracy_interval": accuracy_interval,
        **top,
        **values,
        "num_images": num_images,
        "intervals": {
            "accuracy": accuracy_interval,
            "top_k_accuracy": share_interval(num_in_top, num_images),
            **intervals,
        },
        "classes": _classes(labels, answers, num_classes, draws["f1"]),
    }


def share_interval(part: int, whole: int) -> list[float] | None:
    """Return the 95 % interval of Wilson for a share; None of nothing."""
    if whole == 0:
        return None
    interval = binomtest(part, whole).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def centred_interval(
    draws: np.ndarray, value: float, high: float, least: float = 0.0
) -> list[float]:
    """Return the 95 % percentile interval of draws, moved so that their mean is the value.

    Measures that are not linear in the images (ECE above all) are higher in every draw than in the
    sample; the bootstrap's own bias is taken off.

    Args:
        draws: `(num_draws,)`, of the measure on images drawn with replacement.
        value: of the measure on the images themselves.
        high: the largest value that the measure can have.
        least: the least one.
    """
    ends = np.quantile(draws, [0.025, 0.975]) - (draws.mean() - value)
    low, top = np.clip(ends, least, high).tolist()
    return [min(low, value), max(top, value)]


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over 15 bins of confidence."""
    right = probabilities.argmax(1) == labels
    gaps = right - probabilities.max(1)
    return float(
        np.abs(np.bincount(confidence_bins(probabilities), gaps, NUM_BINS)).sum() / len(labels)
    )


def confidence_bins(probabilities: np.ndarray) -> np.ndarray:
    """Return for each image which of 15 equal bins its highest probability is in, ints `(n,)`."""
    return np.minimum((probabilities.max(1) * NUM_BINS).astype(int), NUM_BINS - 1)


def image_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each image in nats, `(num_images,)`."""
    of_label = probabilities[np.arange(len(labels)), labels].astype("float64")
    return -np.log(np.maximum(of_label, np.finfo("float64").eps))


def _in_top(labels: np.ndarray, probabilities: np.ndarray) -> tuple[int, int]:
    """Return k, and for how many images the label is among the k most probable classes."""
    num_classes = probabilities.shape[1]
    k = min(TOP_K, num_classes - 1)
    if num_classes == 2:
        return k, int((probabilities.argmax(1) == labels).sum())
    classes = np.arange(num_classes)
    return k, int(top_k_accuracy_score(labels, probabilities, k=k, labels=classes, normalize=False))


def _macro(labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Means over the classes that occur among labels or answers."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, answers, average="macro", zero_division=0.0
    )
    return {
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
    }


def _brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    num_classes = probabilities.shape[1]
    if num_classes == 2:  # scikit-learn wants the one column
        return 2 * float(brier_score_loss(labels, probabilities[:, 1], labels=[0, 1]))
    classes = np.arange(num_classes)
    return float(brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False))


def _classes(
    labels: np.ndarray, answers: np.ndarray, num_classes: int, f1_draws: np.ndarray
) -> list[dict[str, Any]]:
    """Return a row a class; what has no images to be measured on is None."""
    classes = np.arange(num_classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, answers, labels=classes, zero_division=np.nan
    )
    answered = np.bincount(answers, minlength=num_classes)
    right = np.bincount(labels[answers == labels], minlength=num_classes)
    return [
        {
            "num_images": int(support[index]),
            "num_answered": int(answered[index]),
            "precision": _known(precision[index]),
            "precision_interval": share_interval(int(right[index]), int(answered[index])),
            "recall": _known(recall[index]),
            "recall_interval": share_interval(int(right[index]), int(support[index])),
            "f1": _known(f1[index]),
            "f1_interval": None
            if np.isnan(f1[index])
            else centred_interval(f1_draws[:, index], float(f1[index]), 1.0),
        }
        for index in classes
    ]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _drawn(labels: np.ndarray, probabilities: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the bootstrapped measures of a thousand draws of the images with replacement."""
    num_images, num_classes = probabilities.shape
    terms = _terms(labels, probabilities)
    sums = [(terms.T @ counts.T).T for counts in draws_of_images(num_images, seed)]
    return _of_sums(np.concatenate(sums), num_images, num_classes)


def draws_of_images(num_images: int, seed: int) -> Iterator[np.ndarray]:
    """Yield a thousand draws of images with replacement, in chunks that fit the memory.

    Each is how often each image was drawn, ints `(num_draws, num_images)`.
    """
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _DRAWN_AT_A_TIME // num_images)
    for start in range(0, NUM_DRAWS, at_a_time):
        size = min(at_a_time, NUM_DRAWS - start)
        yield rng.multinomial(num_images, np.full(num_images, 1 / num_images), size)


def _terms(labels: np.ndarray, probabilities: np.ndarray) -> csr_array:
    """Return what each image adds to the sums of which all measures are made.

    `(num_images, 2 + 15 + 3 * num_classes)`: its loss, its Brier score, its gap in the bin of its
    confidence; then, a class each, whether it is a right answer, an image, an answer.
    """
    num_images, num_classes = probabilities.shape
    answers = probabilities.argmax(1)
    right = answers == labels
    one_hot = labels[:, None] == np.arange(num_classes)
    first_class = 2 + NUM_BINS
    rows = np.arange(num_images)
    columns = [
        np.zeros(num_images, int),
        np.ones(num_images, int),
        2 + confidence_bins(probabilities),
        first_class + labels,
        first_class + num_classes + labels,
        first_class + 2 * num_classes + answers,
    ]
    values = [
        image_losses(labels, probabilities),
        ((probabilities - one_hot) ** 2).sum(1),
        right - probabilities.max(1),
        right.astype("float64"),
        np.ones(num_images),
        np.ones(num_images),
    ]
    place = (np.tile(rows, len(columns)), np.concatenate(columns))
    return csr_array(
        (np.concatenate(values), place), shape=(num_images, first_class + 3 * num_classes)
    )


def _of_sums(sums: np.ndarray, num_images: int, num_classes: int) -> dict[str, np.ndarray]:
    """Return the measures of each row of sums of `_terms`."""
    gaps = sums[:, 2 : 2 + NUM_BINS]
    right, images, answered = sums[:, 2 + NUM_BINS :].reshape(-1, 3, num_classes).transpose(1, 0, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = np.nan_to_num(right / answered), np.nan_to_num(right / images)
        f1 = np.nan_to_num(2 * right / (images + answered))
    present = (images + answered) > 0
    num_present = present.sum(1)
    return {
        "log_loss": sums[:, 0] / num_images,
        "brier": sums[:, 1] / num_images,
        "ece": np.abs(gaps).sum(1) / num_images,
        "macro_precision": precision.sum(1) / num_present,
        "macro_recall": recall.sum(1) / num_present,
        "macro_f1": f1.sum(1) / num_present,
        "f1": f1,
    }
