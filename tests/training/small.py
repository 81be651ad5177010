"""A backbone and images so small that a training of them is little more than its traced graphs."""

import dataclasses

import keras
import numpy as np

from kerastl.data.load import load_data
from kerastl.data.split import Split

SIZE = 8  # pixels of a side


def small_backbone(num_stages=2, size=SIZE):
    """Return a backbone with BatchNormalization whose stages each halve the sides.

    Its convolutions have no biases: TensorFlow fuses those of frozen layers, and rounds otherwise.
    """
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for index in range(num_stages):
        x = keras.layers.Conv2D(
            6, 3, 2, padding="same", use_bias=False, name=f"conv_{index}"
        )(x)  # fmt: skip
        x = keras.layers.BatchNormalization(name=f"bn_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
    return keras.Model(inputs, x)


def small_data(count=60, num_classes=3, size=SIZE, noise=120, contrast=130, **how):
    """Return images of classes that are told apart by their colour, by default easily."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % num_classes
    images = rng.integers(0, noise, (count, size, size, 3))
    images[np.arange(count), :, :, labels] += contrast
    return load_data((images.astype("uint8"), labels), seed=0, **how)


def unsettled(data):
    """Return the same with some validation labels wrong, so that no head is right about all."""
    held_out = data.validation
    wrong = (held_out.labels + (np.arange(len(held_out)) % 5 == 0)) % data.num_classes
    validation = Split(held_out.source, wrong, data.num_classes)
    return dataclasses.replace(data, validation=validation)
