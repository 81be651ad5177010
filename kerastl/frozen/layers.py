"""Finds a layer in a network, and builds the network that ends there."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kerastl._checks import did_you_mean
from kerastl.backbones.graph import is_graph, read_graph
from kerastl.errors import ArgumentError

# Places in the order of a graph, and then in that of each model inside: names that Keras numbers
# differ from one building of a network to the next, places do not.
Place = tuple[int, ...]
_NUM_LISTED = 8


def find_layer(model: Any, name: str) -> Place | None:
    """Return the (last) place of a layer in the graph, or None.

    Args:
        model: Functional `keras.Model`.
        name: of a layer or an operation, also of one in a model inside; or its path, as in
            `"backbone/block_5_add"`, where several models inside have one of that name.

    Raises:
        ArgumentError: several have that name.
    """
    places = dict(_places(model))
    if name in places:
        return places[name]
    found = [path for path in places if path.endswith(f"/{name}")]
    if len(found) > 1:
        raise ArgumentError(
            f"`at` must match exactly one layer. Received: at={name!r}, which matches "
            f"{', '.join(map(repr, found))}. Use one of these paths."
        )
    return places[found[0]] if found else None


def unknown_layer(name: str, owner: str, models: Sequence[Any]) -> ArgumentError:
    """Return the error about a name that no layer of these models has; it lists near ones."""
    paths = [path for model in models for path, _ in _places(model)]
    names = list(dict.fromkeys([*(path.rsplit("/", 1)[-1] for path in paths), *paths]))
    last = paths[-_NUM_LISTED:]
    return ArgumentError(
        f"`at` must be the name of a layer of {owner!r}. Received: "
        f"at={name!r}.{did_you_mean(name, names)} The last layers are "
        f"{', '.join(map(repr, last))}; `model.summary(expand_nested=True)` lists all "
        "layers."
    )


def network_to(model: Any, place: Place) -> Any:
    """Return the network from the inputs of a model to the output of the layer at a place.

    Of a model inside it that has several the last one is taken: the end of a backbone.

    Raises:
        ArgumentError: the layer has several outputs.
    """
    graph = read_graph(model)
    node = graph.nodes[place[0]]
    if len(node.outputs) != 1 and not is_graph(node.operation):
        raise ArgumentError(
            f"A layer of codes must have one output. Received: at={node.name!r}, which has "
            f"{len(node.outputs)}. Choose the layer that uses the output you want."
        )
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    if len(place) == 1:
        return keras.Model(inputs, node.outputs[-1])
    read = [graph.tensor(key) for key in node.inputs]
    inside = network_to(node.operation, place[1:])
    return keras.Model(inputs, inside(read[0] if len(read) == 1 else read))


def _places(model: Any, path: str = "", place: Place = ()) -> Iterator[tuple[str, Place]]:
    """Yield the path and the place of each node, those inside a model before it."""
    for number, node in enumerate(read_graph(model).nodes):
        here = f"{path}{node.name}"
        if is_graph(node.operation):
            yield from _places(node.operation, f"{here}/", (*place, number))
        yield here, (*place, number)
