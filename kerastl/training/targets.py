"""What differs from task to task while a model trains: head, units of the targets, what is kept."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from kerastl.advice.probe import SoftmaxProbe, head_weights
from kerastl.advice.task_probes import fit_labels, fit_values
from kerastl.model.heads import rescale_outputs
from kerastl.model.objectives import image_scores, label_measures
from kerastl.training.callbacks import least_worth_keeping


class KeepCriterion(NamedTuple):
    """What epochs are judged by: a score of their logs, and what it has to rise above."""

    least: float
    score: Callable[[dict[str, Any]], float]


def fit_linear_head(
    task: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int, num_outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of a head that is fitted to embeddings `(num_examples, dim)`.

    A class without images is never predicted. Several labels get a probe each, numbers a ridge
    regression. `groups` `(num_examples,)` is the image of each example.
    """
    if task == "multi_label":
        return fit_labels(x, y, groups, seed)
    if task == "regression":
        return fit_values(x, y, groups, seed)
    return head_weights(SoftmaxProbe(seed=seed).fit(x, y, groups), num_outputs)


def measure_head(
    task: str, outputs: np.ndarray, labels: np.ndarray, train_labels: np.ndarray
) -> dict[str, float]:
    """Return loss and accuracy of the outputs of a head, named as in the logs of `fit`."""
    if task == "multi_label":
        return label_measures(labels, outputs)
    if task == "regression":
        gaps = (outputs - labels) / _scale(train_labels)[1]
        return {
            "loss": float((gaps**2).mean()), "mean_absolute_error": float(np.abs(gaps).mean())
        }  # fmt: skip
    right = outputs[np.arange(len(labels)), labels]
    return {
        "loss": float(-np.log(np.maximum(right, 1e-7)).mean()),
        "accuracy": float((outputs.argmax(1) == labels).mean()),
    }


@contextlib.contextmanager
def standard_outputs(
    task: str, model: keras.Model, train_labels: np.ndarray, *, begun: bool
) -> Iterator[None]:
    """Have the head of a regression answer in standard units while a phase trains.

    `begun` says that it does already, as of a checkpoint of the phase.
    """
    if task != "regression":
        yield
        return
    mean, deviation = _scale(train_labels)
    if not begun:
        rescale_outputs(model, 1 / deviation, -mean / deviation)
    try:
        yield
    finally:
        rescale_outputs(model, deviation, mean)


def standardise_targets(task: str, batches: Any, train_labels: np.ndarray) -> Any:
    """Return batches with the targets of a regression in standard units, others as they are."""
    if task != "regression" or batches is None:
        return batches
    mean, deviation = _scale(train_labels)
    return batches.map(lambda images, values: (images, (values - mean) / deviation))


def keep_criterion(
    task: str, network: keras.Model, validation: Any, before: dict[str, float], num_images: int
) -> KeepCriterion:
    """Return by what the weights of an epoch are kept: a standard error above those before.

    Of several labels an image counts by its share of correct labels, of numbers by its squared
    error. `before` holds the measures of the network on the validation images.
    """
    if task == "classification":
        least = least_worth_keeping(before["accuracy"], num_images)
        return KeepCriterion(least, lambda logs: float(logs["val_accuracy"]))
    parts = [
        image_scores(np.asarray(labels), network.predict_on_batch(inputs), task)
        for inputs, labels in validation
    ]
    scores = np.concatenate(parts).astype("float64")
    least = float(scores.mean() + scores.std() / len(scores) ** 0.5)
    if task == "multi_label":
        return KeepCriterion(least, lambda logs: float(logs["val_binary_accuracy"]))
    return KeepCriterion(least, lambda logs: -float(logs["val_loss"]))


def _scale(train_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the targets of the training images, each `(num_targets,)`."""
    deviation = train_labels.std(0)
    return train_labels.mean(0), np.where(deviation > 0, deviation, 1).astype("float32")
