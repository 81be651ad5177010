"""A backbone as a chain of stages found in its graph."""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from kerastl._shown import Shown
from kerastl.backbones.graph import (
    Graph,
    Shape,
    TensorKey,
    multiply_adds,
    output_shapes,
    parameters,
    position_of,
    read_graph,
)
from kerastl.backbones.grouping import CutCost, group_cuts
from kerastl.errors import ArgumentError, KerastlError

if TYPE_CHECKING:
    import keras

# Networks with fewer stages than this between single tensors are cut between pairs as well.
MIN_STAGES = 4
BYTES_PER_VALUE = 2
# The stages of each Functional model, found once: its graph does not change.
_chains: "weakref.WeakKeyDictionary[Any, tuple[Stage, ...]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Cut(CutCost):
    """A place where few tensors alone are alive: all that is above reads nothing else from below.

    Args:
        name: Name of the layer after which it lies.
        position: Its place in the order in which the graph runs.
        output_shapes: Shapes of the tensors, without the batch.
    """

    name: str
    position: int
    output_shapes: tuple[Shape, ...]


@dataclass(frozen=True, repr=False)
class Stage(Shown):
    """The layers between two cuts.

    Args:
        index: Its number, from 0 at the input.
        name: Name of the layer that ends it.
        layers: Names of its layers in the order they run (operations such as `+` are none).
        num_parameters: Parameters of these layers.
        macs: Multiply-adds of these layers, for one image.
        macs_share: The part of the backbone's multiply-adds that they are, 0 to 1.
        output_shapes: Shapes of the tensors that leave it (one; two in NASNet), without the batch.
        bytes_per_image: Size of these tensors in float16.
        position: Place of its end in the order in which the graph runs.
    """

    index: int
    name: str
    layers: tuple[str, ...]
    num_parameters: int
    macs: int
    macs_share: float
    output_shapes: tuple[Shape, ...]
    bytes_per_image: int
    position: int

    def _in_short(self) -> str:
        size, share = f"{self.num_parameters:,} parameters", f"{self.macs_share:.0%} of the work"
        return f"{self.index}, ends at {self.name!r}, {size}, {share}"


def find_cuts(model: Any, width: int = 1) -> list[Cut]:
    """Return the places of a network where `width` tensors alone are alive.

    Args:
        model: Functional `keras.Model`. Nested models count as one layer.
        width: How many tensors pass. Defaults to 1.

    Returns:
        Cuts in the order of the graph; the output is among them, the input is not.
    """
    return _cuts(model, read_graph(model), widths=(width,))


def find_stages(model: Any) -> list[Stage]:
    """Return the stages of a Functional `keras.Model`, from the input to the output.

    Stages end at cuts, so never inside a residual block. Where single tensors give fewer than 4
    (NASNet, whose cells read the two cells before), pairs of tensors are cut as well.

    Returns:
        The stages; together they hold every layer once.

    Raises:
        KerastlError: When a layer with weights runs in two stages, or in none.
    """
    if (known := _chains.get(model)) is not None:
        return list(known)
    graph = read_graph(model)
    cuts = _cuts(model, graph, widths=(1,))
    ends = group_cuts(cuts)
    if len(ends) < MIN_STAGES:
        cuts = _cuts(model, graph, widths=(1, 2))
        ends = group_cuts(cuts)
    stages = _stages(graph, [cuts[end] for end in ends])
    _check_every_weight(model, stages)
    if not hasattr(model, "add"):  # a Sequential can grow
        _chains[model] = tuple(stages)
    return stages


def split(model: "keras.Model", cut: Cut | Stage | str) -> tuple[Any, Any]:
    """Split a model at a cut into two models that share its layers.

    `suffix(prefix(x))` equals `model(x)`. Weights and `trainable` are shared with `model`, before
    and after training. A cut of two tensors gives a prefix with two outputs and a suffix with two
    inputs. If the model has several outputs, the last one is cut; outputs that are complete below
    the cut are passed through, before the tensors of the cut.

    Args:
        model: Functional `keras.Model`.
        cut: a `Cut` of `find_cuts(model)`, a `Stage` of `stages(model)` (cut at its end), or the
            name of a layer after which only one or two tensors are alive.

    Returns:
        `(prefix, suffix)`; for a cut at the output, the suffix is the identity.

    Raises:
        ArgumentError: there is no such cut.
    """
    import keras

    graph = read_graph(model)
    tensors = [graph.tensor(key) for key in _cut_tensors(graph, cut)]
    images = _one_or_list(model.inputs)
    prefix = keras.Model(images, _one_or_list(tensors), name=f"{model.name}_prefix")
    # Keras makes no model of whose outputs one is an input, unless it is that of an `Input`, and
    # OpenVINO loses the name of one that nothing is done to.
    passing = {id(tensor) for tensor in tensors}
    ends = [
        keras.layers.Rescaling(1.0)(tensor) if id(tensor) in passing else tensor
        for tensor in model.outputs
    ]
    suffix = keras.Model(_one_or_list(tensors), _one_or_list(ends), name=f"{model.name}_suffix")
    return prefix, suffix


def _one_or_list(tensors: Sequence[Any]) -> Any:
    # A model made of a list of one tensor wants and gives lists.
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _cut_tensors(graph: Graph, cut: Cut | Stage | str) -> tuple[TensorKey, ...]:
    name = cut if isinstance(cut, str) else cut.name
    position = position_of(graph, cut) if isinstance(cut, str) else cut.position
    if position >= len(graph.nodes) or graph.nodes[position].name != name:
        raise ArgumentError(
            f"`cut` must belong to this model. Received: cut={name!r} at place {position}, which "
            "is a different layer in this model. Use a cut from `kerastl.stages(model)`."
        )
    frontier, trunk = graph.frontiers()[position], graph.trunk()
    width = sum(source in trunk for source, _ in frontier)
    if width > 2:
        raise ArgumentError(
            "`cut` must be at a place where only one or two tensors are alive. Received: "
            f"cut={name!r}, after which {width} are alive. Use the end of one of "
            "`kerastl.stages(model)`."
        )
    return frontier


def _cuts(model: Any, graph: Graph, widths: tuple[int, ...]) -> list[Cut]:
    shapes = output_shapes(model, graph)
    macs = list(accumulate(multiply_adds(graph, shapes)))
    counts = list(accumulate(parameters(graph)))
    found, trunk = [], graph.trunk()
    for position, alive in enumerate(graph.frontiers()):
        frontier = [key for key in alive if key[0] in trunk]
        if position not in trunk or len(frontier) not in widths:
            continue
        if not any(graph.nodes[at].inputs for at, _ in frontier):
            continue
        passing = tuple(
            tuple(graph.tensor((at, index)).shape[1:]) if index else shapes[at][1:]
            for at, index in frontier
        )
        num_bytes = BYTES_PER_VALUE * sum(math.prod(side or 1 for side in s) for s in passing)
        size = tuple(side or 1 for side in passing[-1][:-1])  # of a pair the deeper tells the level
        costs = (size, num_bytes, macs[position], counts[position])
        found.append(Cut(*costs, graph.nodes[position].name, position, passing))
    return found


def _stages(graph: Graph, ends: Sequence[Cut]) -> list[Stage]:
    stages = []
    below = (-1, 0, 0)
    for index, end in enumerate(ends):
        nodes = graph.nodes[below[0] + 1 : end.position + 1]
        names = [node.name for node in nodes if node.is_layer]
        stages.append(
            Stage(
                index=index,
                name=end.name,
                layers=tuple(dict.fromkeys(names)),
                num_parameters=end.num_parameters - below[2],
                macs=end.macs - below[1],
                macs_share=(end.macs - below[1]) / max(ends[-1].macs, 1),
                output_shapes=end.output_shapes,
                bytes_per_image=end.bytes_per_image,
                position=end.position,
            )
        )
        below = (end.position, end.macs, end.num_parameters)
    return stages


def _check_every_weight(model: Any, stages: Sequence[Stage]) -> None:
    for layer in model.layers:
        holding = [stage.index for stage in stages if layer.name in stage.layers]
        if layer.weights and len(holding) != 1:
            where = f"stages {holding}" if holding else "no stage"
            raise KerastlError(
                f"Each layer with weights must belong to one stage. Layer {layer.name!r} of "
                f"{model.name!r} belongs to {where}. Use a separate layer for each place, or "
                "nest the part that shares the layer in a model, which counts as one layer."
            )
