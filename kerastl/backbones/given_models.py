"""Backbones with their own weights: a user's model, or an earlier run."""

import dataclasses
import os
from typing import Any

import keras

from kerastl.backbones import hub
from kerastl.backbones.graph import read_graph
from kerastl.backbones.loaded import LoadedBackbone, check_image_input
from kerastl.backbones.preprocessing import Preprocessing, preprocessing_of
from kerastl.backbones.saved_model_backbone import (
    clone_at_size,
    flatten_nested_models,
    is_transfer_model,
    read_saved,
    saved_file,
    split_transfer_model,
    without_classifier,
)
from kerastl.backbones.table import builder_of
from kerastl.data.split import both_sides
from kerastl.errors import ArgumentError

OWN_WEIGHTS = "model"  # the weights that a model has already
ANY_SIZE = 224  # side assumed for a model that takes any size


def load_saved(backbone: str, weights: str | os.PathLike[str], image_size: Any) -> LoadedBackbone:
    """Return an earlier model without its classifier; arguments as `load_backbone` takes them."""
    if weights not in ("imagenet", OWN_WEIGHTS, "random"):
        raise ArgumentError(
            f"Do not pass `weights` for the earlier model {backbone!r}, which has its own "
            f"weights, or pass 'random'. Received: weights={os.fspath(weights)!r}."
        )
    is_random = weights == "random"
    loaded = _of_model(read_saved(saved_file(backbone)), image_size, weights=not is_random)
    return dataclasses.replace(
        loaded, name=backbone, weights="random" if is_random else OWN_WEIGHTS
    )


def load_given(
    model: keras.Model, weights: str | os.PathLike[str], image_size: Any
) -> LoadedBackbone:
    """Return a copy of a user's model without its classifier, which leaves theirs as it is.

    The layers of a backbone of KerasHub are shared, since the configuration of some, such as Swin
    and EfficientNet, is not what they were made of. Arguments as `load_backbone` takes them.
    """
    _check_kept(weights)
    return _of_model(model, image_size)


def _check_kept(weights: str | os.PathLike[str]) -> None:
    if weights not in ("imagenet", OWN_WEIGHTS):
        raise ArgumentError(
            "Do not pass `weights` for a keras.Model, which has its own weights. Received: "
            f"weights={weights!r}. Load them first with `model.load_weights(...)`."
        )


def whole_model(
    model: keras.Model, weights: str | os.PathLike[str] = "imagenet", image_size: Any = None
) -> LoadedBackbone:
    """Return a Functional model as it stands, with its head; arguments as `load_backbone` takes."""
    _check_kept(weights)
    model = _functional(model)
    size = _size_of_model(model.name, _check_tensors(model), image_size)
    return LoadedBackbone(model, model.name, preprocessing_needed(model), size, OWN_WEIGHTS)


def preprocessing_needed(model: keras.Model) -> Preprocessing:
    """Return what a user's model needs done to raw pixels: nothing, unless Keras says otherwise.

    A model that `keras.applications` built, without anything in front of it, needs the
    `preprocess_input` of its family, as its name tells.

    Raises:
        ArgumentError: it was built without the preprocessing that its family has inside.
    """
    builder = builder_of(model.name)
    if builder is None:
        return Preprocessing()
    for node in read_graph(model).nodes:
        if isinstance(node.operation, (keras.layers.InputLayer, keras.layers.ZeroPadding2D)):
            continue
        if not getattr(node.operation, "weights", []) or isinstance(
            node.operation, keras.layers.Normalization
        ):
            return Preprocessing()  # something of its own comes first
        break
    if builder.mode == "none":
        raise ArgumentError(
            f"The model {model.name!r} is a {builder.name} of keras.applications without its "
            "preprocessing. Build it with include_preprocessing=True, or put its preprocessing "
            "in front: `keras.Model(inputs, model(scaled(inputs)))`."
        )
    return preprocessing_of(builder.mode)


def _of_model(model: keras.Model, image_size: Any, *, weights: bool = True) -> LoadedBackbone:
    preprocessing = Preprocessing()
    if hub.is_hub_backbone(model):
        own = hub.fixed_size(model)
        size = _size_of_model(model.name, own or (None, None), image_size)
        graph = hub.as_graph(model, size)
        graph = graph if weights else clone_at_size(graph, weights=False)
        return LoadedBackbone(graph, model.name, preprocessing, size, OWN_WEIGHTS)
    model = _functional(model)
    if is_transfer_model(model):
        network, preprocessing = split_transfer_model(model)
        given = None if image_size is None else both_sides(image_size)
        kept = given == network.inputs[0].shape[1:3]
        network = clone_at_size(network, None if kept else given, weights=weights)
    else:
        _check_tensors(model)
        preprocessing = preprocessing_needed(model)
        network = flatten_nested_models(clone_at_size(without_classifier(model), weights=weights))
    size = _size_of_model(network.name, _check_tensors(network), image_size)
    return LoadedBackbone(network, network.name, preprocessing, size, OWN_WEIGHTS)


def _functional(model: keras.Model) -> keras.Model:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ArgumentError(
            "A backbone must be a Functional keras.Model, because kerastl cuts its graph into "
            f"stages. Received: {type(model).__name__} {model.name!r}, which has no graph. Build "
            "it as `keras.Model(inputs, outputs)` (for a Sequential model, start with "
            "`keras.Input`)."
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _check_tensors(model: keras.Model) -> tuple[int | None, int | None]:
    own = check_image_input(model)
    outputs = [tuple(tensor.shape) for tensor in model.outputs]
    if len(outputs) != 1 or not 2 <= len(outputs[0]) <= 4:
        raise ArgumentError(
            "A backbone must have one output: (batch, height, width, dim), (batch, tokens, dim) "
            f"or (batch, dim). Received: {model.name!r} with outputs {outputs}. Use one of them: "
            "`keras.Model(model.input, model.outputs[-1])`."
        )
    return own


def _size_of_model(
    name: str, own: tuple[int | None, int | None], image_size: Any
) -> tuple[int, int]:
    given = both_sides(ANY_SIZE if image_size is None else image_size)
    if image_size is not None and any(o not in (None, g) for o, g in zip(own, given, strict=True)):
        raise ArgumentError(
            f"`image_size` must be {own} or left out for {name!r}, which takes images of that "
            f"size. Received: image_size={image_size!r}"
        )
    return own[0] or given[0], own[1] or given[1]
