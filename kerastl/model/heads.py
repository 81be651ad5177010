"""The classifier on top of the pooled backbone."""

from typing import Any

import keras
import numpy as np

HEADS = ("linear",)


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
    """
    head: Any = model.get_layer("head")
    head.set_weights([kernel, bias])
