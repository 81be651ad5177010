"""Pools the feature maps of a backbone to the input of the head."""

from typing import Any

import keras

from kerastl.backbones.graph import read_graph
from kerastl.backbones.stages import find_stages
from kerastl.errors import ArgumentError

POOL = "pool"
# Added to a variance: the square root of 0, as of a channel that is dead, has no gradient.
LEAST_VARIANCE = 1e-6


def pool_layer(rank: int) -> keras.layers.Layer:
    """Return the layer that pools a backbone's output of that rank to `(batch, dim)`."""
    if rank == 4:
        return keras.layers.GlobalAveragePooling2D(name=POOL)
    if rank == 3:
        return keras.layers.GlobalAveragePooling1D(name=POOL)
    if rank == 2:
        return keras.layers.Identity(name=POOL)
    raise ArgumentError(
        "The backbone's output must have rank 2, 3 or 4 (batch, ..., dim). "
        f"Received rank {rank}. Cut the backbone at another layer."
    )


def stage_ends(backbone: keras.Model) -> list[Any]:
    """Return the tensor at the end of each stage; the deeper where two leave it (NASNet)."""
    graph = read_graph(backbone)
    frontiers = graph.frontiers()
    return [graph.tensor(frontiers[stage.position][-1]) for stage in find_stages(backbone)]


def mean_and_deviation(tensor: Any) -> list[Any]:
    """Return mean and standard deviation of each channel, `(batch, channels)`; a vector itself."""
    axes = tuple(range(1, len(tensor.shape) - 1))
    if not axes:
        return [tensor]
    variance = keras.ops.var(tensor, axis=axes)
    return [keras.ops.mean(tensor, axis=axes), keras.ops.sqrt(variance + LEAST_VARIANCE)]


def stage_outputs(backbone: keras.Model) -> list[Any]:
    """Return what a backbone under a head of all stages gives.

    Mean and deviation of every stage but the last, then the unpooled end of the last, which is the
    trunk that can be cut.
    """
    *earlier, last = stage_ends(backbone)
    return [part for end in earlier for part in mean_and_deviation(end)] + [last]


def stage_pool_layer(outputs: Any) -> keras.Model:
    """Return the layer that makes `(batch, dim)` of what `stage_outputs` gives."""
    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in outputs]
    *earlier, last = inputs
    vectors = [*earlier, *mean_and_deviation(last)]
    pooled = keras.layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]
    return keras.Model(inputs, pooled, name=POOL)
