"""The classifier on top of the pooled backbone."""

from typing import Any

import keras
import numpy as np

from kerastl.errors import ArgumentError

HEADS = ("linear", "mlp")
HIDDEN_UNITS = 512  # of fastai's `create_head` (https://docs.fast.ai/vision.learner.html)


ACTIVATIONS = {"classification": "softmax", "multi_label": "sigmoid", "regression": "linear"}


def make_head(
    kind: str, num_classes: int, dropout: float = 0.0, task: str = "classification"
) -> keras.layers.Layer:
    """Return a classifier of pooled embeddings, one layer that is named `head`.

    Args:
        kind: `"linear"`, or `"mlp"` with a hidden layer of 512 rectified units.
        num_classes: Units of the last layer.
        dropout: Share of the inputs of each dense layer that training leaves out, 0 to below 1.
        task: Of `TASKS`; decides the activation.
    """
    last = linear_head(num_classes, task)
    hidden = keras.layers.Dense(
        HIDDEN_UNITS, activation="relu", kernel_initializer="he_normal", name="hidden"
    )
    layers: list[keras.layers.Layer] = []
    for dense in [hidden, last] if kind == "mlp" else [last]:
        layers += [keras.layers.Dropout(dropout), dense] if dropout else [dense]
    return last if len(layers) == 1 else keras.Sequential(layers, name=last.name)


def linear_head(num_classes: int, task: str = "classification") -> keras.layers.Layer:
    """Return a softmax classifier in float32 (also under mixed precision), starting at zero.

    A sigmoid a unit where images have several labels, and none for numbers. A zero start predicts
    every class alike: the first gradients are those of the data alone (as BiT,
    https://arxiv.org/abs/1912.11370).
    """
    return keras.layers.Dense(
        num_classes,
        activation=ACTIVATIONS[task],
        kernel_initializer="zeros",
        dtype="float32",
        name="head",
    )


def task_of(model: keras.Model) -> str:
    """Return the task of a model, which the activation of our own last layer tells.

    A model that ends in another layer is held for a classifier: what the numbers of a foreign one
    mean cannot be told (scores of classes, perhaps).
    """
    last = _last_layer(model)
    if isinstance(last, keras.layers.Dense) and last.name == "head":
        if last.activation is keras.activations.sigmoid:
            return "multi_label"
        if last.activation is keras.activations.linear:
            return "regression"
    return "classification"


def _last_layer(model: keras.Model) -> Any:
    last = model.layers[-1]
    return last.layers[-1] if isinstance(last, keras.Sequential) else last


def rescale_outputs(model: keras.Model, scale: np.ndarray, offset: np.ndarray) -> None:
    """Have the head of a regression answer `scale` times what it does, plus `offset`.

    Args:
        model: a model of `build_transfer_model(task="regression")`.
        scale: `(num_targets,)`.
        offset: `(num_targets,)`.
    """
    last = _last_layer(model)
    kernel, bias = last.get_weights()
    last.set_weights([kernel * scale, bias * scale + offset])


def set_linear_head(model: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Give the head of `model` the scores of a linear classifier.

    Args:
        model: a model of `build_transfer_model` with a linear head.
        kernel: `(dim, num_classes)`.
        bias: `(num_classes,)`.

    Raises:
        ArgumentError: The head has a hidden layer.
    """
    check_linear_head(model)
    head: Any = model.get_layer("head")
    head.set_weights([kernel, bias])


def check_linear_head(model: keras.Model) -> None:
    """Raise an `ArgumentError` unless the head of `model` is a linear classifier."""
    if len(model.get_layer("head").weights) != 2:
        raise ArgumentError(
            "A probe can give its scores to a linear head alone, and this model's has a hidden "
            "layer. Build the model with head='linear', or train it by a recipe whose phases are "
            "all of method 'gradient', such as 'guide', 'fastai' or 'bit'."
        )
