"""Measures how much training changed the weights of each stage."""

import keras
import numpy as np

from kerastl.model.freeze import backbone_of, stages
from kerastl.results.run_shapes import StageMovement


def weights_by_stage(model: keras.Model) -> list[list[np.ndarray]]:
    """Return copies of the weights of each stage of a model's backbone, input first.

    Args:
        model: a model of `build_transfer_model`.
    """
    layers = {layer.name: layer for layer in backbone_of(model).layers}
    return [
        [np.array(value) for name in stage.layers for value in layers[name].get_weights()]
        for stage in stages(model)
    ]


def how_far_moved(model: keras.Model, start: list[list[np.ndarray]]) -> list[StageMovement]:
    """Return how much training changed the weights of each stage.

    Args:
        model: a model of `build_transfer_model`, trained.
        start: the result of `weights_by_stage` before training.

    Returns:
        One `StageMovement` per stage, input first.

    Example:
        >>> start = weights_by_stage(model)
        >>> kerastl.fine_tune(model, data, recipe="large_similar")
        >>> [round(stage["moved"], 3) for stage in how_far_moved(model, start)]
        [0.0, 0.0, 0.004, 0.011, 0.023]
    """
    return [
        {
            "name": stage.name,
            "num_parameters": stage.num_parameters,
            "moved": _distance(before, after),
        }
        for stage, before, after in zip(stages(model), start, weights_by_stage(model), strict=True)
    ]


def _distance(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """Return the relative distance of two lists of arrays of equal shapes."""
    apart = sum(
        float(np.square(b.astype("float64") - a).sum()) for b, a in zip(before, after, strict=True)
    )
    length = sum(float(np.square(b.astype("float64")).sum()) for b in before)
    return float(np.sqrt(apart / length)) if length else 0.0
