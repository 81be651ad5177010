"""Inlines KerasHub layers into the graph, and makes each of them serialisable."""

import functools
import inspect
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

from kerastl.backbones.graph import Graph, parameters, read_graph

MAX_DEPTH = 4  # of layers in layers; KerasHub has three


def inline_blocks(model: keras.Model, package: str) -> keras.Model:
    """Return a network in which the blocks of a package's layers are layers of their own.

    A vision transformer of KerasHub is two or three layers: patches, encoder, normalization. Its
    encoder is called on a symbolic tensor, which puts its blocks into the graph, where there is a
    place to cut between them. A layer is opened when most of its weights are in several blocks of
    one class, it has none beside those of the layers in it, a place between two of them lets no
    more through than the layer reads, and it is the same graph in training as in inference.

    Args:
        model: Functional `keras.Model` of one input and one output. Layers and weights are shared;
            blocks whose names are taken are renamed after the layer that held them.
        package: Name of the package whose layers are opened, as in `"keras_hub"`.

    Returns:
        A plain Functional `keras.Model` that computes the same.
    """
    network = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    for _ in range(MAX_DEPTH):
        opened: list[str] = []
        call = functools.partial(_call, package, {each.name for each in network.layers}, opened)
        network = keras.models.clone_model(
            network, clone_function=lambda layer: layer, call_function=call
        )
        if not opened:
            break
    return network


def _call(
    package: str, names: set[str], opened: list[str], layer: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call a layer of the graph, or the layers in it one after another."""
    if not _is_of(layer, package):
        return layer(*args, **kwargs)
    make_serializable(layer)
    if not _is_to_be_opened(layer, package, args, kwargs):
        return layer(*args, **kwargs)
    opened.append(layer.name)
    for part in _parts(layer):
        if part.name in names:
            part.name = f"{layer.name}_{part.name}"
            kept = getattr(part, "_auto_config", None)
            if kept is not None and "name" in kept.config:
                kept.config["name"] = part.name
        names.add(part.name)
    return layer.call(*args, **kwargs)


def _is_of(layer: Any, package: str) -> bool:
    of_package = type(layer).__module__.split(".")[0] == package
    return of_package and isinstance(layer, keras.Layer) and not isinstance(layer, keras.Model)


def _parts(layer: Any) -> list[Any]:
    return list(layer._flatten_layers(include_self=False, recursive=False))


def make_serializable(layer: Any) -> None:
    """Let a layer of another package be saved alone, with what its constructor takes.

    KerasHub saves layers as part of a backbone alone, and the `get_config` of some leaves arguments
    out, has some that the constructor does not take, or fails on an argument that is a class. Where
    Keras kept what a layer was made with, that is its configuration.
    """
    kept = getattr(layer, "_auto_config", None)
    takes = {*inspect.signature(type(layer).__init__).parameters, "name", "trainable", "dtype"}
    own = type(layer).get_config

    def get_config() -> dict[str, object]:
        base = keras.Layer.get_config(layer)
        if kept is not None:
            return {**kept.config, **base, "name": kept.config.get("name") or layer.name}
        try:
            return {key: value for key, value in own(layer).items() if key in takes}
        except TypeError:  # a class among the arguments
            arguments = takes - {"self", "kwargs", *base}
            return {**base, **{key: _reference(getattr(layer, key)) for key in arguments}}

    layer.get_config = get_config
    if type(layer).build is keras.Layer.build:
        layer.get_build_config = lambda: None  # Keras warns of a `build` that builds nothing


def _reference(value: Any) -> Any:
    """A layer class of Keras as Keras refers to a function, other values as they are."""
    if not isinstance(value, type):
        return value
    name = value.__name__
    return {
        "module": "keras.layers", "class_name": "function", "config": name, "registered_name": name,
    }  # fmt: skip


def _is_to_be_opened(layer: Any, package: str, args: Any, kwargs: Any) -> bool:
    parts = _parts(layer)
    held = {id(weight) for part in parts for weight in part.weights}
    if not parts or {id(weight) for weight in layer.weights} != held:
        return False
    if not _has_blocks(parts, package):
        return False
    training, graph = (_graph(layer, args, kwargs, training=mode) for mode in (True, False))
    if training is None or graph is None or _steps(training) != _steps(graph):
        return False  # training changes it, or it takes no symbols
    return _has_cut(graph)


def _has_blocks(parts: Sequence[Any], package: str) -> bool:
    """Whether most of the weights are in several layers of one class of the package."""
    classes = Counter(type(part) for part in parts if part.weights and _is_of(part, package))
    sizes = Counter[type]()
    for part in parts:
        sizes[type(part)] += sum(math.prod(weight.shape) for weight in part.weights)
    return any(count > 1 and 2 * sizes[kind] > sizes.total() for kind, count in classes.items())


def _has_cut(graph: Graph) -> bool:
    """Whether no more than the inputs passes somewhere between two layers with weights."""
    passing = len([node for node in graph.nodes if not node.inputs])
    below = parameters(graph)
    return any(
        len(frontier) <= passing and sum(below[: position + 1]) and sum(below[position + 1 :])
        for position, frontier in enumerate(graph.frontiers())
    )


def _steps(graph: Graph) -> list[Any]:
    return [id(n.operation) if n.is_layer and n.inputs else type(n.operation) for n in graph.nodes]


def _graph(layer: Any, args: Any, kwargs: Any, *, training: bool) -> Graph | None:
    inputs: list[Any] = []  # like the symbolic tensors among the arguments

    def fresh(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        inputs.append(keras.Input(batch_shape=value.shape, dtype=value.dtype))
        return inputs[-1]

    given, named = keras.tree.map_structure(fresh, (args, kwargs))
    if "training" in layer.call.__code__.co_varnames:
        named["training"] = training
    try:
        outputs = keras.tree.flatten(layer.call(*given, **named))
        graphs = [
            read_graph(keras.Model(inputs, tensor))
            for tensor in outputs
            if isinstance(tensor, keras.KerasTensor) and not any(tensor is x for x in inputs)
        ]
    except (TypeError, ValueError, AttributeError):
        return None
    # Of several outputs (the ends of all blocks) the last in the graph shows the whole chain.
    return max(graphs, key=lambda graph: len(graph.nodes), default=None)
