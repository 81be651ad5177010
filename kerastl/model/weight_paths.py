"""The paths that the weights of a model have once it is saved and loaded."""

import random
from collections.abc import Sequence
from typing import Any

import keras


def paths_once_loaded(model: keras.Model, trained: Sequence[Any]) -> dict[int, str]:
    """Return the path that each weight, by its id, has once the model is saved and loaded.

    Layers that were built inside a name scope or another layer have it in the paths of their
    weights; loading builds each layer by its own name. Where none of the trained weights belongs to
    such a layer, as in a head, all paths stay as they are, and the result is empty.
    """
    as_loaded = {
        id(weight)
        for layer in model.layers
        for weight in layer.weights
        if weight.path == f"{layer.name}/{weight.name}"
    }
    if as_loaded.issuperset(map(id, trained)):
        return {}
    state = random.getstate()  # initial weights draw from it, which the next training sees
    try:
        twin = type(model).from_config(model.get_config())
        pairs = zip(model.weights, twin.weights, strict=True)
        return {id(weight): of_twin.path for weight, of_twin in pairs}
    except Exception:  # whatever a layer that cannot be loaded raises
        return {}
    finally:
        random.setstate(state)
