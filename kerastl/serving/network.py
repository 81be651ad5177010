"""The part of a model that is served: from pixels to embedding and probabilities."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._checks import check_float, check_tensorflow
from kerastl._task import Task, check_supports
from kerastl.errors import ArgumentError
from kerastl.frozen.prefixes import embedding_network
from kerastl.model.heads import task_of


def served_network(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Return the network from pixels to `[embedding, probabilities]`, sharing the model's layers.

    The temperature is folded into the head, so that it costs nothing and every format has it.

    Args:
        model: one whose last layer is a dense softmax; of several labels a sigmoid, of a
            regression without activation.
        temperature: above 0; the scores are divided by it before the softmax
            (https://arxiv.org/abs/1706.04599).

    Raises:
        ArgumentError: the model has another end.
    """
    check_tensorflow("An export")
    task = task_of(model)
    check_temperature(task, temperature)
    head = model.layers[-1]
    if task.has_boxes:
        pool = keras.layers.GlobalAveragePooling2D()
        ends = [pool(embedding_network(model).outputs[-1]), model.outputs[0]]
        return keras.Model(model.inputs, ends, name="served")
    layers = _layers_of(head, task.activation)
    if not layers or len(model.inputs) != 1:
        raise ArgumentError(
            "The model must have one input and end in a dense layer with a softmax, like "
            "the models of `build_transfer_model` (a sigmoid for several labels, no "
            f"activation for regression). Received a model that ends in {head!r}."
        )
    embedding = x = head.input
    for layer in layers[:-1]:
        x = layer(x)
    x = (layers[-1] if temperature == 1.0 else _divided(layers[-1], temperature))(x)
    return keras.Model(model.inputs, [embedding, x], name="served")


def check_temperature(task: Task, temperature: float) -> None:
    """Raise unless the scores of a task can be divided by a temperature."""
    check_float("temperature", temperature, 0.0, exclusive=True)
    if temperature != 1.0:
        check_supports(task.name, "temperature")


def _layers_of(head: Any, activation: str) -> list[Any]:
    """Return the layers of a head that inference needs; none unless the last is dense."""
    layers = head.layers if isinstance(head, keras.Sequential) else [head]
    layers = [layer for layer in layers if not isinstance(layer, keras.layers.Dropout)]
    last: Any = layers[-1] if layers else None
    is_dense = isinstance(last, keras.layers.Dense)
    return layers if is_dense and last.activation is keras.activations.get(activation) else []


def _divided(dense: Any, temperature: float) -> Any:
    divided = keras.layers.Dense.from_config(dense.get_config())
    divided.build((None, dense.kernel.shape[0]))
    divided.set_weights([np.asarray(weight) / temperature for weight in dense.weights])
    return divided


def traced(network: keras.Model, size: tuple[int, int]) -> Any:
    """Return one graph function of a served network, in inference mode, for all signatures.

    float32 `(batch, *size, channels)` to the embedding and the probabilities, both float32.
    """

    def run(images: Any) -> tuple[Any, ...]:
        return tuple(tf.cast(output, tf.float32) for output in network(images, training=False))

    signature = [tf.TensorSpec((None, *size, network.inputs[0].shape[-1]), tf.float32)]
    return tf.function(run, input_signature=signature, autograph=False)
