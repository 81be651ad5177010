"""What is minimised and watched in each task, as Keras has it."""

from typing import Any

import keras
import numpy as np

LOSSES = {
    "classification": "sparse_categorical_crossentropy",
    "multi_label": "binary_crossentropy",
    "regression": "mean_squared_error",
}
"""Of a compiled model, whose labels are as `Split.batches` gives them."""

MEASURES = {
    "classification": "accuracy",
    "multi_label": "binary_accuracy",
    "regression": "mean_absolute_error",
}
"""What `history` calls the measure beside the loss."""


def metrics_of(task: str, num_outputs: int) -> list[Any]:
    """Return the metrics of a compiled model.

    Of several labels the area under the precision-recall curve too, the mean over the labels,
    which tells more than accuracy where labels are rare.
    """
    if task != "multi_label":
        return [MEASURES[task]]
    area = keras.metrics.AUC(curve="PR", multi_label=True, num_labels=num_outputs, name="auc_pr")
    return [MEASURES[task], area]


def phase_loss(task: str, label_smoothing: float, **how: Any) -> keras.losses.Loss:
    """Return the loss of labels that are one-hot, mixed or numbers."""
    if task == "regression":
        return keras.losses.MeanSquaredError(**how)
    kind = (
        keras.losses.CategoricalCrossentropy
        if task == "classification"
        else keras.losses.BinaryCrossentropy
    )
    return kind(label_smoothing=label_smoothing, **how)


def phase_metrics(task: str) -> list[Any]:
    """Return the metrics of a phase, whose labels may be mixed."""
    return [binary_accuracy] if task == "multi_label" else [MEASURES[task]]


def binary_accuracy(labels: Any, predicted: Any) -> Any:
    """Return the share of labels told rightly; Keras' own counts no label that mixup changed."""
    right = keras.ops.equal(labels > 0.5, predicted > 0.5)
    return keras.ops.mean(keras.ops.cast(right, "float32"), axis=-1)


def image_scores(labels: np.ndarray, outputs: np.ndarray, task: str) -> np.ndarray:
    """Return by what each image counts: the more the better, `(num_images,)`.

    Args:
        labels: `(num_images, num_outputs)`.
        outputs: `(num_images, num_outputs)`.
        task: `"multi_label"`, where it is the share of labels told rightly, or `"regression"`,
            where it is minus the mean squared error.
    """
    if task == "multi_label":
        return np.asarray(((labels > 0.5) == (outputs > 0.5)).mean(1))
    return np.asarray(-((labels - outputs) ** 2).mean(1))


def label_measures(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the binary cross-entropy and the share of labels told rightly."""
    kept = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return {
        "loss": float(-np.where(labels > 0.5, np.log(kept), np.log1p(-kept)).mean()),
        "binary_accuracy": float(image_scores(labels, probabilities, "multi_label").mean()),
    }
