"""The operations of a Functional model in execution order, with the tensors alive between them.

Keras keeps the graph in `tensor._keras_history`; it is read from `model.outputs` each time, since
an operation gains further nodes when another model is built over it (`layer.output` then raises).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerastl._checks import did_you_mean
from kerastl.errors import ArgumentError

Shape = tuple[int | None, ...]
# An output of a node: its place in the order, and which of the node's outputs.
TensorKey = tuple[int, int]

UNKNOWN_SIDE = 224


@dataclass(frozen=True)
class Node:
    """One call of an operation, at its place in the order."""

    operation: Any
    inputs: tuple[TensorKey, ...]
    outputs: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Name of the operation, a layer in most cases."""
        return str(self.operation.name)

    @property
    def is_layer(self) -> bool:
        """Whether the operation is a layer; `x + y` and the functions of `keras.ops` are none."""
        return hasattr(self.operation, "trainable_weights")


@dataclass(frozen=True)
class Graph:
    """A model's nodes, each after those that it reads from, and the keys of its outputs."""

    nodes: tuple[Node, ...]
    outputs: tuple[TensorKey, ...]

    def tensor(self, key: TensorKey) -> Any:
        """Return the Keras tensor of a key."""
        position, index = key
        return self.nodes[position].outputs[index]

    def frontiers(self) -> list[tuple[TensorKey, ...]]:
        """Return, for each node, the tensors that are alive once it has run."""
        return live_after([node.inputs for node in self.nodes], self.outputs)

    def trunk(self) -> set[int]:
        """Return the places of the nodes that the last output comes from.

        The backbone under a head of all stages has other outputs too, which leave the trunk there.
        """
        found, left = set[int](), [self.outputs[-1][0]]
        while left:
            position = left.pop()
            if position not in found:
                found.add(position)
                left.extend(source for source, _ in self.nodes[position].inputs)
        return found


def read_graph(model: Any) -> Graph:
    """Return the graph of a Functional (or built Sequential) model.

    The nodes of the last output come in depth-first order, as if it were the only one; what else
    there is stands right after what it is made from.
    """
    positions: dict[tuple[int, int], int] = {}
    nodes: list[Node] = []

    def key(tensor: Any) -> TensorKey:
        operation, node_index, tensor_index = tensor._keras_history
        return positions[id(operation), node_index], tensor_index

    for tensor in _in_order(model.outputs):
        operation, node_index, _ = tensor._keras_history
        recorded = operation._inbound_nodes[node_index]
        inputs = tuple(key(read) for read in recorded.input_tensors)
        positions[id(operation), node_index] = len(nodes)
        nodes.append(Node(operation, inputs, tuple(recorded.output_tensors)))
    return Graph(tuple(nodes), tuple(key(tensor) for tensor in model.outputs))


def _in_order(outputs: Sequence[Any]) -> list[Any]:
    """One tensor of each node that `outputs` come from, in the order of `read_graph`."""
    trunk_first = _inputs_first([outputs[-1], *outputs[:-1]])
    trunk = len(_inputs_first(outputs[-1:]))
    places: dict[tuple[int, int], int] = {}
    for index, tensor in enumerate(trunk_first):
        operation, node_index, _ = tensor._keras_history
        reads = operation._inbound_nodes[node_index].input_tensors
        after = [places[id(read._keras_history[0]), read._keras_history[1]] for read in reads]
        places[id(operation), node_index] = index if index < trunk else max(after, default=-1)
    order = sorted(range(len(trunk_first)), key=list(places.values()).__getitem__)
    return [trunk_first[index] for index in order]


def _inputs_first(outputs: Sequence[Any]) -> list[Any]:
    """One tensor of each node that `outputs` come from, in post-order (no recursion: deep nets)."""
    ordered, seen = [], set()
    stack = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, inputs_done = stack.pop()
        operation, node_index, _ = tensor._keras_history
        if inputs_done:
            ordered.append(tensor)
        elif (id(operation), node_index) not in seen:
            seen.add((id(operation), node_index))
            stack.append((tensor, True))
            reads = operation._inbound_nodes[node_index].input_tensors
            stack.extend((read, False) for read in reversed(reads))
    return ordered


def live_after(
    inputs: Sequence[Sequence[TensorKey]], outputs: Sequence[TensorKey]
) -> list[tuple[TensorKey, ...]]:
    """Return, for each position, the tensors made there or before and read later.

    Args:
        inputs: For each position, the keys that are read there.
        outputs: Keys that are read after the last position.

    Example:
        >>> live_after([[], [(0, 0)], [(0, 0), (1, 0)]], [(2, 0)])  # a shortcut around one layer
        [((0, 0),), ((0, 0), (1, 0)), ((2, 0),)]
    """
    last_read = {key: position for position, keys in enumerate(inputs) for key in keys}
    last_read.update(dict.fromkeys(outputs, len(inputs)))
    made: dict[int, list[TensorKey]] = {}
    for key in sorted(last_read):
        made.setdefault(key[0], []).append(key)
    frontiers, live = [], list[TensorKey]()
    for position in range(len(inputs)):
        live = [key for key in live + made.get(position, []) if last_read[key] > position]
        frontiers.append(tuple(live))
    return frontiers


def output_shapes(
    model: Any, graph: Graph, input_shapes: Sequence[Shape] | None = None
) -> list[Shape]:
    """Return the shape of each node's first output, without unknown sides.

    Args:
        model: The model that `graph` was read from.
        graph: Its graph.
        input_shapes: Shapes to assume for its inputs. Defaults to their own, where an unknown side
            counts as 224.
    """
    own = [tuple(tensor.shape) for tensor in model.inputs]
    wanted: list[Shape] = [
        (shape[0], *(UNKNOWN_SIDE if side is None else side for side in shape[1:]))
        for shape in (own if input_shapes is None else input_shapes)
    ]
    outputs = [node.outputs[0] for node in graph.nodes]
    if [shape[1:] for shape in own] == [shape[1:] for shape in wanted]:
        return [tuple(output.shape) for output in outputs]
    import keras

    every = keras.Model(model.inputs, outputs)
    given = [keras.KerasTensor(shape) for shape in wanted]
    computed = every.compute_output_spec(given if len(given) > 1 else given[0])
    return [tuple(tensor.shape) for tensor in computed]


def multiply_adds(graph: Graph, shapes: Sequence[Shape]) -> list[int]:
    """Return the multiply-adds of each node for one image; a nested model counts as one node."""
    counts = []
    for node, shape in zip(graph.nodes, shapes, strict=True):
        if is_graph(node.operation):
            nested = read_graph(node.operation)
            given = output_shapes(
                node.operation, nested, [shapes[source] for source, _ in node.inputs]
            )
            counts.append(sum(multiply_adds(nested, given)))
            continue
        kernels = [math.prod(w.shape) for w in _weights(node.operation) if len(w.shape) > 1]
        counts.append(math.prod(side or 1 for side in shape[1:-1]) * sum(kernels))
    return counts


def parameters(graph: Graph) -> list[int]:
    """Return the parameters that each node brings; a layer used again brings none."""
    seen, counts = set[int](), []
    for node in graph.nodes:
        new = [weight for weight in _weights(node.operation) if id(weight) not in seen]
        seen.update(id(weight) for weight in new)
        counts.append(sum(math.prod(weight.shape) for weight in new))
    return counts


def _weights(operation: Any) -> list[Any]:
    return list(getattr(operation, "weights", []))


def is_graph(operation: Any) -> bool:
    """Return whether an operation is itself a model whose graph can be read."""
    outputs = getattr(operation, "outputs", None)
    return bool(outputs) and hasattr(operation, "layers") and hasattr(operation, "inputs")


def position_of(graph: Graph, name: str) -> int:
    """Return where the operation of that name last runs."""
    for position in reversed(range(len(graph.nodes))):
        if graph.nodes[position].name == name:
            return position
    names = [node.name for node in graph.nodes]
    raise ArgumentError(
        f"`cut` must be a Cut, a Stage or the name of a layer of the backbone. "
        f"Received: cut={name!r}.{did_you_mean(name, names)} `kerastl.stages(model)` lists some."
    )
