"""Calibrates probabilities with a temperature."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from kerastl.errors import ArgumentError, DataError
from kerastl.results.predictions import Predictions
from kerastl.results.run_files import Json

MOST = 20.0  # temperatures from 1/20 to 20 are looked at
_STEP = 1e-3  # of the second derivative


def calibrate(validation: Predictions, test: Predictions | None = None) -> Json:
    """Fit a temperature to validation images, and measure its effect on the probabilities.

    The scores are divided by the temperature before the softmax, which does not change the
    predicted classes (https://arxiv.org/abs/1706.04599). Pass it to `export_model(temperature=)`.

    Args:
        validation: predictions for images that the model was not trained on.
        test: predictions on which the effect is measured too.

    Returns:
        A dict with `temperature` (above 1: the model was overconfident), its 95 % `interval` and
        `num_images`; for `validation` and `test`, `log_loss` and `ece` as `[before,
        after]`.

    Raises:
        DataError: there are no validation images.
        ArgumentError: the predictions are for several labels or regression.

    Example:
        >>> validation = kerastl.collect_predictions(model, data.validation)
        >>> kerastl.export_model(model, "serving/flowers",
        ...                      temperature=kerastl.calibrate(validation)["temperature"])
    """
    if not isinstance(validation, Predictions):
        raise ArgumentError(
            "`calibrate` needs a classifier with a softmax. Received: "
            f"{type(validation).__name__}. Export the model without a temperature."
        )
    if len(validation) == 0:
        raise DataError(
            "`calibrate` needs validation images. Received none. Load the data with "
            "`validation_fraction` above 0."
        )
    temperature, interval = fit_temperature(validation.labels, validation.probabilities)
    found: Json = {"temperature": temperature, "interval": interval, "num_images": len(validation)}
    for name, predictions in (("validation", validation), ("test", test)):
        if predictions is not None:
            before = predictions.measures()
            after = with_temperature(predictions, temperature).measures()
            found[name] = {key: [before[key], after[key]] for key in ("log_loss", "ece")}
    return found


def with_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Return the answers with their scores divided by a temperature."""
    probabilities = softmax(_scores(predictions.probabilities) / temperature, axis=1)
    return Predictions(
        predictions.labels, probabilities, predictions.class_names, predictions.paths
    )


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, list[float]]:
    """Return the temperature of the least log loss, and its 95 % interval.

    Its logarithm has a normal prior of mean 0 and deviation 1, which weighs as little as an image
    and keeps it finite where all answers are right. The interval is Laplace's.
    """
    scores = _scores(probabilities)
    of_label = scores[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        shrunk = np.exp(-log_temperature)
        likelihood = of_label * shrunk - logsumexp(scores * shrunk, axis=1)
        return float(log_temperature**2 / 2 - likelihood.sum())

    most = float(np.log(MOST))
    best = float(minimize_scalar(loss, bounds=(-most, most), method="bounded").x)
    curvature = (loss(best + _STEP) - 2 * loss(best) + loss(best - _STEP)) / _STEP**2
    half = 1.96 / np.sqrt(max(curvature, 1.0))  # the prior's own curvature is 1
    return float(np.exp(best)), [float(np.exp(best - half)), float(np.exp(best + half))]


def _scores(probabilities: np.ndarray) -> np.ndarray:
    """Return scores whose softmax is the probabilities, float64 of the same shape."""
    return np.log(np.maximum(probabilities.astype("float64"), np.finfo("float32").tiny))
