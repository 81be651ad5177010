"""What of a model is served: pixels to its embedding and its probabilities, and nothing more."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._checks import check_float
from kerastl.errors import ArgumentError


def served_network(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Return the network from pixels to `[embedding, probabilities]`, sharing the model's layers.

    The temperature is folded into the head, so that it costs nothing and every format has it.

    Args:
        model: a classifier whose last layer is a dense softmax.
        temperature: above 0; the scores are divided by it before the softmax
            (https://arxiv.org/abs/1706.04599).

    Raises:
        ArgumentError: the model has another end.
    """
    check_float("temperature", temperature, 0.0, exclusive=True)
    head = model.layers[-1]
    if not _is_linear_softmax(head) or len(model.inputs) != 1:
        raise ArgumentError(
            "The model must have one input and end in a dense layer with a softmax, as those of "
            f"`build_transfer_model` do. Received a model that ends in {head!r}."
        )
    embedding = head.input
    if temperature != 1.0:
        head = _divided(head, temperature)
    return keras.Model(model.inputs, [embedding, head(embedding)], name="served")


def _is_linear_softmax(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.softmax


def _divided(head: Any, temperature: float) -> Any:
    divided = keras.layers.Dense.from_config(head.get_config())
    divided.build(head.input.shape)
    divided.set_weights([np.asarray(weight) / temperature for weight in head.weights])
    return divided


def traced(network: keras.Model, size: tuple[int, int]) -> Any:
    """Return one graph function of a served network, in inference mode, for all signatures.

    float32 `(batch, *size, 3)` to the embedding and the probabilities, both float32.
    """

    def run(images: Any) -> tuple[Any, ...]:
        return tuple(tf.cast(output, tf.float32) for output in network(images, training=False))

    return tf.function(run, input_signature=[tf.TensorSpec((None, *size, 3), tf.float32)])
