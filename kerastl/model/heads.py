"""The head on top of the pooled backbone."""

from typing import Any

import keras
import numpy as np

from kerastl._task import DEFAULT_TASK, Task, all_tasks, find_task
from kerastl.errors import ArgumentError
from kerastl.model.freeze import backbone_of
from kerastl.model.head_names import MLP, STAGES, hidden_units, mlp_of
from kerastl.model.kept_words import remember, words_of

_RULES = "pixels: "  # before what a model keeps of how images become its pixels
SETTINGS = "answers"  # before what it keeps of how its outputs become answers


def make_head(
    kind: str | keras.layers.Layer, num_classes: int, dropout: float, activation: str
) -> keras.layers.Layer:
    """Return the layers on top of pooled embeddings as one layer that is named `head`.

    Args:
        kind: as `build_transfer_model` takes it.
        num_classes: units of the last layer.
        dropout: share of the inputs of each dense layer that training leaves out, 0 to below 1.
        activation: of the last layer, as the task has it.
    """
    # A zero start predicts every class alike: the first gradients are those of the data alone (as
    # BiT, https://arxiv.org/abs/1912.11370). float32 also under mixed precision.
    last = keras.layers.Dense(
        num_classes,
        activation=activation,
        kernel_initializer="zeros",
        dtype="float32",
        name="head",
    )
    layers: list[keras.layers.Layer] = []
    for dense in [*_hidden_layers(kind), last]:
        layers += [keras.layers.Dropout(dropout), dense] if dropout else [dense]
    return last if len(layers) == 1 else keras.Sequential(layers, name=last.name)


def _hidden_layers(kind: str | keras.layers.Layer) -> list[keras.layers.Layer]:
    if isinstance(kind, keras.layers.Layer):
        return [keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(kind))]
    return [
        keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"hidden_{number}" if number else "hidden",
        )
        for number, units in enumerate(hidden_units(kind))
    ]


def task_of(model: keras.Model) -> Task:
    """Return the task of a model, with the thresholds that were chosen for it.

    Its name tells: it travels in the file of the model. A model of another name is held for a
    classifier: what the numbers of a foreign one mean cannot be told (scores of classes, perhaps).
    Version 0.1.0 named the models of all tasks alike: the activation of the last layer tells
    theirs.
    """
    return _kind_of(model).with_settings(words_of(model).get(SETTINGS))


def _kind_of(model: keras.Model) -> Task:
    default = find_task(DEFAULT_TASK)
    if model.name == default.model_name:
        last = _last_layer(model)
        for task in all_tasks() if last.name == "head" else []:
            of_old = task.activation_in_0_1
            if of_old and last.activation is keras.activations.get(of_old):
                return task
    return next((task for task in all_tasks() if task.model_name == model.name), default)


def forget_settings(model: keras.Model) -> None:
    """Have a model that is about to change answer as if nothing had been chosen for it."""
    if words_of(model).get(SETTINGS):
        remember(model, SETTINGS, "")


def head_of(model: keras.Model) -> str:
    """Return what kind of head a model of `build_transfer_model` has."""
    if task_of(model).has_boxes:
        return "linear"
    if len(backbone_of(model).outputs) > 1:
        return STAGES
    layers = getattr(model.get_layer("head"), "layers", [])[:-1]
    hidden = [layer for layer in layers if not isinstance(layer, keras.layers.Dropout)]
    rectified = [
        isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.relu
        for layer in hidden
    ]
    if hidden and all(rectified):
        return mlp_of([layer.units for layer in hidden])
    return MLP if hidden else "linear"  # layers that someone gave are no name, but hidden as well


def _last_layer(model: keras.Model) -> Any:
    last = model.layers[-1]
    return last.layers[-1] if isinstance(last, keras.Sequential) else last


def fold_affine_into_head(model: keras.Model, scale: np.ndarray, offset: np.ndarray) -> None:
    """Have a head without activation answer `scale` times what it does, plus `offset`.

    Args:
        model: a model of `build_transfer_model` whose task standardises its targets.
        scale: `(num_outputs,)`.
        offset: `(num_outputs,)`.
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
            "A probe can only initialise a linear head, but the head of this model has a "
            "hidden layer. Build the model with head='linear', or train with a recipe that "
            "has only phases of method 'gradient', such as 'guide', 'fastai' or 'bit'."
        )
