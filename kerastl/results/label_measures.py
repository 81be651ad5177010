"""How good answers of several labels an image are, in numbers, each with its 95 % interval."""

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from kerastl.results.measures import NUM_DRAWS, centred_interval, draws_of_images, share_interval

THRESHOLD = 0.5
"""A label is answered where its probability is above."""


def label_measures(
    labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0
) -> dict[str, Any]:
    """Return the measures of `evaluate` for several labels an image.

    Args:
        labels: 0 and 1 `(num_images, num_labels)`; at least one image.
        probabilities: `(num_images, num_labels)`, from 0 to 1.
        seed: of the draws of the bootstrap.
    """
    truth, answers = labels > 0.5, probabilities > THRESHOLD
    scores = probabilities.astype("float64")
    losses = label_losses(labels, probabilities)
    right, positives, answered = (truth & answers).sum(0), truth.sum(0), answers.sum(0)
    with np.errstate(invalid="ignore"):  # of a label that nothing has, NaN
        precision, recall = right / answered, right / positives
        f1 = 2 * right / (positives + answered)
    average = _average_precisions(truth, scores)
    wrong, exact = (truth != answers).mean(1), (truth == answers).all(1)
    values: dict[str, float | None] = {
        "mean_average_precision": _mean(average),
        "macro_f1": _mean(f1),
        "micro_f1": float(2 * right.sum() / max(1, (positives + answered).sum())),
        "hamming_loss": float(wrong.mean()),
        "log_loss": float(losses.mean()),
    }
    draws = _drawn(truth, answers, scores, wrong, losses, seed)
    intervals = {
        name: _interval(draws[name], value, np.inf if name == "log_loss" else 1.0)
        for name, value in values.items()
    }
    num_exact = int(exact.sum())
    intervals["subset_accuracy"] = share_interval(num_exact, len(truth))
    return {
        **values,
        "subset_accuracy": num_exact / len(truth),
        "num_images": len(truth),
        "intervals": intervals,
        "labels": [
            {
                "num_images": int(positives[place]),
                "num_answered": int(answered[place]),
                "precision": _known(precision[place]),
                "precision_interval": share_interval(int(right[place]), int(answered[place])),
                "recall": _known(recall[place]),
                "recall_interval": share_interval(int(right[place]), int(positives[place])),
                "f1": _known(f1[place]),
                "f1_interval": _interval(draws["f1"][:, place], _known(f1[place])),
                "average_precision": _known(average[place]),
                "average_precision_interval": _interval(
                    draws["average_precision"][:, place], _known(average[place])
                ),
            }
            for place in range(truth.shape[1])
        ],
    }


def label_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the mean binary cross-entropy over the labels of each image in nats, `(n,)`."""
    least = np.finfo("float64").eps
    of_truth = np.where(labels > 0.5, probabilities, 1 - probabilities.astype("float64"))
    return np.asarray(-np.log(np.maximum(of_truth, least)).mean(1))


def weighted_average_precisions(
    truth: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the average precision of one label under many weights of the images.

    As scikit-learn's `average_precision_score(..., sample_weight=)`, for all rows of weights at
    once: the sum of precision times the rise of recall over the distinct scores.

    Args:
        truth: bool `(num_images,)`.
        scores: `(num_images,)`.
        weights: `(num_draws, num_images)`.

    Returns:
        `(num_draws,)`; NaN where no image that has the label has weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    right = np.cumsum(weights * truth[order], axis=1)[:, ends]
    answered = np.cumsum(weights, axis=1)[:, ends]
    rises = np.diff(right, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(answered > 0, right / answered, 0)
        return np.asarray((precision * rises).sum(1) / right[:, -1])


def _average_precisions(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return `(num_labels,)`; NaN of a label that no image has."""
    return np.array(
        [
            average_precision_score(truth[:, place], scores[:, place])
            if truth[:, place].any()
            else np.nan
            for place in range(truth.shape[1])
        ]
    )


def _drawn(
    truth: np.ndarray,
    answers: np.ndarray,
    scores: np.ndarray,
    wrong: np.ndarray,
    losses: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """Return the bootstrapped measures of a thousand draws of the images with replacement."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("right", "both", "ap", "mean")}
    for counts in draws_of_images(len(truth), seed):
        weights = counts.astype("float64")
        found["right"].append(weights @ (truth & answers))
        found["both"].append(weights @ (truth.astype("float64") + answers))
        found["mean"].append(weights @ np.stack([wrong, losses], 1) / len(truth))
        columns = zip(truth.T, scores.T, strict=True)
        found["ap"].append(
            np.stack([weighted_average_precisions(*column, weights) for column in columns], 1)
        )
    right, both, average, means = (np.concatenate(parts) for parts in found.values())
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * right / both
        micro = np.nan_to_num(2 * right.sum(1) / both.sum(1))
    return {
        "f1": f1,
        "average_precision": average,
        "macro_f1": _row_means(f1),
        "micro_f1": micro,
        "mean_average_precision": _row_means(average),
        "hamming_loss": means[:, 0],
        "log_loss": means[:, 1],
    }


def _row_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row over what is known; NaN of a row where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(1) / known.sum(1))


def _interval(draws: np.ndarray, value: float | None, high: float = 1.0) -> list[float] | None:
    """Return the interval of a measure that is known in most draws."""
    known = draws[~np.isnan(draws)]
    if value is None or len(known) < NUM_DRAWS / 2:
        return None
    return centred_interval(known, value, high)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
