"""Measures for several labels per image."""

import numpy as np

from kerastl.results.measures import (
    Arrays,
    Measured,
    bootstrap,
    centred_interval,
    none_if_nan,
    output_rows,
    share_interval,
)

THRESHOLD = 0.5
"""A label is answered where its probability is above, where nothing else was chosen."""


def measure_labels(
    labels: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray | float = THRESHOLD,
    *,
    seed: int = 0,
) -> Measured:
    """Return the measures of `evaluate` for several labels an image.

    Args:
        labels: 0 and 1 `(num_images, num_labels)`; at least one image.
        probabilities: `(num_images, num_labels)`, from 0 to 1.
        thresholds: `(num_labels,)`, or one for all; a label is answered above.
        seed: of the draws of the bootstrap.
    """
    truth, answers = labels > 0.5, probabilities > thresholds
    columns = list(zip(truth.T, probabilities.T.astype("float64"), strict=True))
    right, either = truth & answers, truth.astype("float64") + answers
    of_images = np.stack([(truth != answers).mean(1), label_losses(labels, probabilities)], 1)

    def measure(counts: np.ndarray) -> Arrays:
        average = np.stack([weighted_average_precisions(*one, counts) for one in columns], 1)
        num_right, num_either = counts @ right, counts @ either
        with np.errstate(invalid="ignore", divide="ignore"):  # of a label that nothing has, NaN
            f1 = 2 * num_right / num_either
            micro = np.nan_to_num(2 * num_right.sum(1) / num_either.sum(1))
        wrong, loss = (counts @ of_images / len(truth)).T
        return {
            "mean_average_precision": _row_means(average),
            "macro_f1": _row_means(f1),
            "micro_f1": micro,
            "hamming_loss": wrong,
            "log_loss": loss,
            "f1": np.where(counts @ truth > 0, f1, np.nan),  # of a draw without the label, nothing
            "average_precision": average,
        }

    found, draws = bootstrap(measure, len(truth), seed)
    averages = found.pop("average_precision")
    del found["f1"]  # of each label
    values = {name: none_if_nan(value) for name, value in found.items()}
    num_exact = int((truth == answers).all(1).sum())
    rows = output_rows(right.sum(0), answers.sum(0), truth.sum(0), draws["f1"])
    each = np.broadcast_to(thresholds, truth.shape[1])
    for place, row in enumerate(rows):
        row["threshold"] = float(each[place])
        average = row["average_precision"] = none_if_nan(averages[place])
        of_label = draws["average_precision"][:, place]
        row["average_precision_interval"] = centred_interval(of_label, average)
    return {
        **values,
        "subset_accuracy": num_exact / len(truth),
        "num_images": len(truth),
        "intervals": {
            **{
                name: centred_interval(draws[name], value, np.inf if name == "log_loss" else 1.0)
                for name, value in values.items()
            },
            "subset_accuracy": share_interval(num_exact, len(truth)),
        },
        "labels": rows,
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


def precision_by_image(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return a number an image, whose mean is the average precision of a label.

    Average precision is no mean over images. By the jackknife (Efron 1982, The Jackknife, the
    Bootstrap and Other Resampling Plans) an image brings n - 1 times what the average precision
    would lose without it; moved so that the mean is right, these numbers have the standard error
    of the jackknife, and two rankings of the same images can be compared image by image.

    Args:
        truth: bool `(num_images,)`, some of them true.
        scores: `(num_images,)`; of equal ones the first counts as the higher.

    Returns:
        `(num_images,)`.
    """
    order = np.argsort(-scores, kind="stable")
    right, places = truth[order], np.arange(1, len(truth) + 1)
    found = np.cumsum(right)
    num_right = int(found[-1])
    average = float((right * found / places).sum() / num_right)
    if num_right == 1 or len(truth) == 1:  # without it there is nothing to find
        return np.full(len(truth), average)

    def above_and_below(precisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums over the right ones before each place, and after it."""
        sums = np.cumsum(right * precisions)
        return sums - right * precisions, sums[-1] - sums

    above, _ = above_and_below(found / places)
    before = np.maximum(places - 1, 1)
    _, below_wrong = above_and_below(found / before)
    _, below_right = above_and_below((found - 1) / before)
    without = np.where(
        right, (above + below_right) / (num_right - 1), (above + below_wrong) / num_right
    )
    brought = np.empty(len(truth))
    brought[order] = (len(truth) - 1) * (average - without)
    return np.asarray(average + brought - brought.mean())


def _row_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row over what is known; NaN of a row where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(1) / known.sum(1))
