"""How good a classifier is, in numbers, each with how sure it is."""

from typing import Any

import keras
import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss

from kerastl.data.split import Split
from kerastl.distribute import on_one_device
from kerastl.errors import ArgumentError, DataError
from kerastl.frozen.activations import image_size_of

NUM_BINS = 15


def evaluate(model: keras.Model, data: Any, *, batch_size: int = 32) -> dict[str, Any]:
    """Measure a classifier on a split, arrays or a dataset it did not see.

    Args:
        model: a model of `build_transfer_model`.
        data: `data.test`, a pair `(images, labels)`, or a batched `tf.data.Dataset` of raw pixels
            and labels, integers or one-hot. Images must have the model's input size, but for a
            split.
        batch_size: images a step.

    Returns:
        A dict with `accuracy`; `accuracy_interval`, the 95 % interval of Wilson; `macro_f1`;
        `log_loss` in nats; `ece`, the expected calibration error over 15 equal bins
        (https://arxiv.org/abs/1706.04599); `num_images`.

    Raises:
        DataError: there are no images.

    Example:
        >>> kerastl.evaluate(model, data.test)["accuracy"]
        0.915
    """
    labels, probabilities = labels_and_probabilities(model, data, batch_size)
    if len(labels) == 0:
        raise DataError("There are no images to evaluate on. Give a split that holds some.")
    return measures(labels, probabilities)


def labels_and_probabilities(
    model: keras.Model, data: Any, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels `(num_images,)` and probabilities `(num_images, num_classes)`."""
    if isinstance(data, Split):
        images = data.images(image_size_of(model), batch_size=batch_size)
        return data.labels, predict_probabilities(model, images)
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        batches = (x[start : start + batch_size] for start in range(0, len(x), batch_size))
        return _integers(y), predict_probabilities(model, batches)
    if data is None or not hasattr(data, "__iter__"):
        raise ArgumentError(
            "`data` must be a split (`data.test`), a pair (images, labels) or a tf.data.Dataset. "
            f"Received: {data!r}"
        )
    alone = on_one_device(model)
    pairs = [(_integers(y), alone.predict_on_batch(x)) for x, y in data]
    if not pairs:
        return np.zeros(0, "int64"), np.zeros((0, model.output_shape[-1]), "float32")
    return np.concatenate([y for y, _ in pairs]), np.concatenate([p for _, p in pairs])


def _integers(labels: Any) -> np.ndarray:
    """Return integer labels `(n,)` of labels `(n,)`, `(n, 1)` or one-hot `(n, num_classes)`."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return np.asarray(labels.argmax(1))
    return labels.reshape(-1)


def predict_probabilities(model: keras.Model, batches: Any) -> np.ndarray:
    """Return the probabilities of batches of raw pixels, in order."""
    alone = on_one_device(model)
    parts = [np.asarray(alone.predict_on_batch(batch)) for batch in batches]
    return np.concatenate(parts) if parts else np.zeros((0, model.output_shape[-1]), "float32")


def measures(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Return the measures of `evaluate` for labels and probabilities."""
    num_images, num_classes = probabilities.shape
    predictions = probabilities.argmax(1)
    num_right = int((predictions == labels).sum())
    interval = binomtest(num_right, num_images).proportion_ci(0.95, method="wilson")
    normalised = probabilities.astype("float64")
    normalised /= normalised.sum(1, keepdims=True)
    return {
        "accuracy": num_right / num_images,
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0.0)),
        "log_loss": float(log_loss(labels, normalised, labels=np.arange(num_classes))),
        "ece": expected_calibration_error(labels, probabilities),
        "num_images": num_images,
    }


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over 15 bins of confidence."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))
