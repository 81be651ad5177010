"""The classifier on top of the pooled backbone."""

from typing import Any

import keras
import numpy as np

from kerastl.errors import ArgumentError

HEADS = ("linear", "mlp")
HIDDEN_UNITS = 512  # of fastai's `create_head` (https://docs.fast.ai/vision.learner.html)


def make_head(kind: str, num_classes: int, dropout: float = 0.0) -> keras.layers.Layer:
    """Return a classifier of pooled embeddings, one layer that is named `head`.

    Args:
        kind: `"linear"`, or `"mlp"` with a hidden layer of 512 rectified units.
        num_classes: Units of the softmax.
        dropout: Share of the inputs of each dense layer that training leaves out, 0 to below 1.
    """
    last = linear_head(num_classes)
    hidden = keras.layers.Dense(
        HIDDEN_UNITS, activation="relu", kernel_initializer="he_normal", name="hidden"
    )
    layers: list[keras.layers.Layer] = []
    for dense in [hidden, last] if kind == "mlp" else [last]:
        layers += [keras.layers.Dropout(dropout), dense] if dropout else [dense]
    return last if len(layers) == 1 else keras.Sequential(layers, name=last.name)


def linear_head(num_classes: int) -> keras.layers.Layer:
    """Return a softmax classifier in float32 (also under mixed precision), starting at zero.

    A zero start predicts every class alike: the first gradients are those of the data alone
    (as BiT, https://arxiv.org/abs/1912.11370).
    """
    return keras.layers.Dense(
        num_classes, activation="softmax", kernel_initializer="zeros", dtype="float32", name="head"
    )


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
