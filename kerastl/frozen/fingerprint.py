"""A hash of what a network computes, the same in every process.

Names of layers, `trainable`, and how weights began do not enter: a model that was saved and loaded
again, frozen otherwise or built a second time has the same hash.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from kerastl._hashing import sha256_of_bytes
from kerastl.backbones.graph import Node, is_graph, read_graph

# Of the configuration of a layer; they do not change what it computes from its weights.
_NO_PART = ("name", "trainable", "seed", "build_config")
_NO_PART_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def network_hash(network: Any) -> str:
    """Return a SHA-256 over the graph and the weights of a Functional model."""
    digest = hashlib.sha256(graph_hash(network).encode())
    for weight in _weights(network):
        value = np.ascontiguousarray(weight)
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(value.view(np.uint8).data)
    return digest.hexdigest()


def graph_hash(network: Any) -> str:
    """Return a SHA-256 over the operations of a Functional model, without its weights."""
    return text_hash(_describe_graph(network))


def text_hash(value: Any) -> str:
    """Return a SHA-256 over plain values (dicts in any order)."""
    return sha256_of_bytes(json.dumps(value, sort_keys=True).encode())


def _describe_graph(network: Any) -> dict[str, object]:
    graph = read_graph(network)
    numbers: dict[int, int] = {}
    for node in graph.nodes:
        numbers.setdefault(id(node.operation), len(numbers))
    nodes = [[numbers[id(node.operation)], *_describe_node(node)] for node in graph.nodes]
    inputs = [list(tensor.shape[1:]) for tensor in network.inputs]
    return {"inputs": inputs, "nodes": nodes, "outputs": graph.outputs}


def _describe_node(node: Node) -> list[Any]:
    operation = node.operation
    kind = f"{type(operation).__module__}.{type(operation).__name__}"
    if is_graph(operation):
        kind, config = "model", _describe_graph(operation)
    else:
        config = _plain(_config(operation))
    _, index, _ = node.outputs[0]._keras_history
    arguments = operation._inbound_nodes[index].arguments
    given = _plain([arguments.args, arguments.kwargs])
    shapes = [list(tensor.shape[1:]) for tensor in node.outputs]
    return [kind, config, given, node.inputs, shapes]


def _config(operation: Any) -> dict[str, object]:
    try:
        config = operation.get_config()
    except NotImplementedError:
        config = vars(operation)
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in _NO_PART and not name.endswith(_NO_PART_ENDINGS)
    }


def _plain(value: Any) -> Any:
    """A value in terms of JSON; a Keras tensor is its place alone."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicyMap":  # it holds words
            value = value["config"]["default_policy"]
        of_one_load = {"shared_object_id"}
        return {str(name): _plain(one) for name, one in value.items() if name not in of_one_load}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "_keras_history"):
        return "tensor"
    if isinstance(value, slice):
        return ["slice", _plain([value.start, value.stop, value.step])]
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _weights(network: Any) -> Iterable[Any]:
    """The weights in the order in which the graph uses them first."""
    seen: set[int] = set()
    for node in read_graph(network).nodes:
        if is_graph(node.operation):
            weights = _weights(node.operation)
        else:
            weights = getattr(node.operation, "weights", [])
        for weight in weights:
            if id(weight) not in seen:
                seen.add(id(weight))
                yield weight
