"""The frozen parts of a model, as networks from pixels to the stored outputs."""

from collections.abc import Sequence
from typing import Any

import keras

from kerastl._checks import check_int
from kerastl.backbones.graph import Node, position_of, read_graph
from kerastl.backbones.stages import Cut, Stage, split
from kerastl.errors import ArgumentError
from kerastl.model.freeze import backbone_of, stages
from kerastl.model.pooling import mean_and_deviation, stage_ends

HEAD = "head"


def image_size_of(model: keras.Model) -> tuple[int, int]:
    """Return the height and width that a model of `build_transfer_model` takes."""
    height, width = model.inputs[0].shape[1:3]
    if height is None or width is None:
        raise ArgumentError(
            f"{model.name!r} takes images of any size, but this needs a fixed size. Pass the "
            "original model of `build_transfer_model`."
        )
    return int(height), int(width)


def cut_name(model: keras.Model, cut_or_depth: Cut | Stage | str | int) -> str:
    """Return the name of the layer of the backbone after which a cut, or freeze depth, lies."""
    if isinstance(cut_or_depth, str):
        return cut_or_depth
    if isinstance(cut_or_depth, (Cut, Stage)):
        return cut_or_depth.name
    chain = stages(model)
    advice = "With depth 0 nothing is frozen, so the activations are the images."
    return chain[check_int("freeze_depth", cut_or_depth, 1, len(chain), advice) - 1].name


def prefix_at(model: keras.Model, name: str) -> keras.Model:
    """Return the network from pixels to the tensors at a cut of the backbone, unpooled."""
    backbone = backbone_of(model)
    below, _ = split(backbone, name)
    if backbone is model:
        return below
    return keras.Model(model.inputs[0], below(_input_of(model, backbone)))


def embedding_network(model: keras.Model) -> keras.Model:
    """Return the network from pixels to the input of the head, `(batch, dim)`.

    Of a head that reads maps there are several inputs.
    """
    return keras.Model(model.inputs[0], _inputs_of(model, _head(model)))


def stage_embedding_network(model: keras.Model) -> keras.Model:
    """Return the network from pixels to what a head of all stages reads, in one pass.

    Its outputs are mean and deviation of each channel at the end of each stage, in this order; a
    stage that ends in a vector has that alone.
    """
    backbone = backbone_of(model)
    parts = [part for end in stage_ends(backbone) for part in mean_and_deviation(end)]
    pooled = keras.Model(backbone.inputs[0], parts)
    if backbone is model:
        return pooled
    return keras.Model(model.inputs[0], pooled(_input_of(model, backbone)))


def between(model: keras.Model, shallow: Stage, name: str | None) -> keras.Model | None:
    """Return the network from the end of a stage to a deeper cut; None where that is not simple.

    Args:
        model: A model of `build_transfer_model`.
        shallow: A stage of its backbone.
        name: The layer after which the deeper cut lies; None for the embeddings.
    """
    backbone = backbone_of(model)
    if name is not None:
        depth = position_of(read_graph(backbone), name)
        return split(split(backbone, shallow)[1], name)[0] if depth > shallow.position else None
    if backbone is model or len(_node_of(model, _head(model)).inputs) > 1:
        return None
    _, above = split(backbone, shallow)
    to_head = keras.Model(_outputs_of(model, backbone), _input_of(model, _head(model)))
    return keras.Model(above.inputs, to_head(_one_or_list(above.outputs)))


def suffix_at(model: keras.Model, depth: int) -> keras.Model:
    """Return the network from what a freeze depth gives to the probabilities; layers are shared.

    Args:
        model: A model of `build_transfer_model`.
        depth: From 1 to the number of stages; at the latter its input are the pooled embeddings.
    """
    chain = stages(model)
    if depth == len(chain):
        return keras.Model(_inputs_of(model, _head(model)), model.outputs[0])
    backbone = backbone_of(model)
    _, above = split(backbone, chain[depth - 1])
    from_backbone = keras.Model(_outputs_of(model, backbone), model.outputs[0])
    inputs = _one_or_list(
        [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in above.inputs]
    )
    return keras.Model(inputs, from_backbone(above(inputs)))


def _head(model: keras.Model) -> Any:
    for layer in model.layers:
        if layer.name == HEAD:
            return layer
    raise ArgumentError(
        f"`model` must have a layer named {HEAD!r}, whose input are the embeddings. "
        f"Received: {model.name!r} without this layer. Build it with `build_transfer_model`."
    )


def _input_of(model: keras.Model, layer: Any) -> Any:
    return read_graph(model).tensor(_node_of(model, layer).inputs[0])


def _inputs_of(model: keras.Model, layer: Any) -> Any:
    graph = read_graph(model)
    return _one_or_list([graph.tensor(key) for key in _node_of(model, layer).inputs])


def _node_of(model: keras.Model, layer: Any) -> Node:
    return next(node for node in read_graph(model).nodes if node.operation is layer)


def _outputs_of(model: keras.Model, layer: Any) -> Any:
    return _one_or_list(_node_of(model, layer).outputs)


def _one_or_list(tensors: Sequence[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else list(tensors)
