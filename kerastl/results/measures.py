"""Measures of predictions, each with a 95 % interval."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest

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

Arrays = dict[str, np.ndarray]
Measured = dict[str, Any]
"""What `evaluate` returns, or one of its rows: numbers and intervals by name, as JSON has them."""


class Bootstrapped(NamedTuple):
    """Measures of the images themselves, and those of each draw of them, by name."""

    found: Arrays
    draws: Arrays


def measures(labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0) -> Measured:
    """Return the measures of `evaluate`.

    Args:
        labels: ints `(num_images,)`, 0 to `num_classes - 1`; at least one.
        probabilities: `(num_images, num_classes)`, each row of sum 1.
        seed: of the draws of the bootstrap.
    """
    num_images, num_classes = probabilities.shape
    probabilities = probabilities.astype("float64")
    probabilities /= probabilities.sum(1, keepdims=True)
    terms = _terms(labels, probabilities)
    found, draws = bootstrap(
        lambda counts: _of_sums((terms.T @ counts.T).T, num_images, num_classes), num_images, seed
    )
    values = {name: float(found[name]) for name in _BOOTSTRAPPED}
    right, images, answered = terms.sum(0)[2 + NUM_BINS :].astype(int).reshape(3, num_classes)
    num_right, k = int(right.sum()), min(TOP_K, num_classes - 1)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    num_in_top = int((best == labels[:, None]).any(1).sum())
    accuracy_interval = share_interval(num_right, num_images)
    return {
        "accuracy": num_right / num_images,
        "accuracy_interval": accuracy_interval,
        "top_k": k,
        "top_k_accuracy": num_in_top / num_images,
        **values,
        "num_images": num_images,
        "intervals": {
            "accuracy": accuracy_interval,
            "top_k_accuracy": share_interval(num_in_top, num_images),
            **{
                name: centred_interval(draws[name], values[name], highest)
                for name, highest in _BOOTSTRAPPED.items()
            },
        },
        "classes": output_rows(right, answered, images, draws["f1"]),
    }


def share_interval(part: int, whole: int) -> list[float] | None:
    """Return the 95 % interval of Wilson for a share; None of nothing."""
    if whole == 0:
        return None
    interval = binomtest(part, whole).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def centred_interval(
    draws: np.ndarray, value: float | None, high: float = 1.0, least: float = 0.0
) -> list[float] | None:
    """Return the 95 % percentile interval of draws, moved so that their mean is the value.

    Measures that are not linear in the images (ECE above all) are higher in every draw than in the
    sample; the bootstrap's own bias is taken off.

    Args:
        draws: `(num_draws,)`, of the measure on images drawn with replacement; NaN where it could
            not be measured. Where that is most of them there is no interval.
        value: of the measure on the images themselves.
        high: the largest value that the measure can have.
        least: the least one.
    """
    known = draws[np.isfinite(draws)]
    if value is None or len(known) < len(draws) / 2:
        return None
    ends = np.quantile(known, [0.025, 0.975]) - (known.mean() - value)
    low, top = np.clip(ends, least, high).tolist()
    return [min(low, value), max(top, value)]


def none_if_nan(value: Any) -> float | None:
    """Return a number, or None for NaN: what there is nothing to measure on."""
    return None if np.isnan(value) else float(value)


def confidence_bins(probabilities: np.ndarray) -> np.ndarray:
    """Return for each image which of 15 equal bins its highest probability is in, ints `(n,)`."""
    return np.minimum((probabilities.max(1) * NUM_BINS).astype(int), NUM_BINS - 1)


def image_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each image in nats, `(num_images,)`."""
    of_label = probabilities[np.arange(len(labels)), labels].astype("float64")
    return -np.log(np.maximum(of_label, np.finfo("float64").eps))


def output_rows(
    right: np.ndarray, answered: np.ndarray, images: np.ndarray, f1_draws: np.ndarray
) -> list[Measured]:
    """Return a row a class or label; what has no images to be measured on is None.

    Args:
        right: number of correct predictions for each class or label, ints `(num_outputs,)`.
        answered: number of predictions, the same shape.
        images: number of images that have the class or label, the same shape.
        f1_draws: `(num_draws, num_outputs)`.
    """
    rows = []
    counts = zip(right.tolist(), answered.tolist(), images.tolist(), strict=True)
    for draws, (num_right, num_answered, num_images) in zip(f1_draws.T, counts, strict=True):
        both = num_answered + num_images
        f1 = 2 * num_right / both if both else None
        rows.append(
            {
                "num_images": num_images,
                "num_answered": num_answered,
                "precision": num_right / num_answered if num_answered else None,
                "precision_interval": share_interval(num_right, num_answered),
                "recall": num_right / num_images if num_images else None,
                "recall_interval": share_interval(num_right, num_images),
                "f1": f1,
                "f1_interval": centred_interval(draws, f1),
            }
        )
    return rows


def bootstrap(measure: Callable[[np.ndarray], Arrays], num_images: int, seed: int) -> Bootstrapped:
    """Return measures of the images, and of a thousand draws of them with replacement.

    Args:
        measure: the measures by their names, each `(num_draws, ...)`, under counts
            `(num_draws, num_images)` of how often each image was drawn.
        num_images: at least 1.
        seed: of the draws.
    """
    once = measure(np.ones((1, num_images)))
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _DRAWN_AT_A_TIME // num_images)  # chunks that fit the memory
    parts = []
    for start in range(0, NUM_DRAWS, at_a_time):
        size = min(at_a_time, NUM_DRAWS - start)
        drawn = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size)
        parts.append(measure(drawn.astype("float64")))
    draws = {name: np.concatenate([part[name] for part in parts]) for name in once}
    return Bootstrapped({name: values[0] for name, values in once.items()}, draws)


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


def _of_sums(sums: np.ndarray, num_images: int, num_classes: int) -> Arrays:
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
        "f1": np.where(images > 0, f1, np.nan),  # of a draw without the class, nothing
    }
