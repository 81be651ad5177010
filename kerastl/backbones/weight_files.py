"""Checks whether a weight file fits a network."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kerastl.backbones.file_sizes import check_weight_file
from kerastl.errors import WeightsError

SUFFIXES = (".h5", ".hdf5")


class LayerWeights(NamedTuple):
    """Names and shapes of the weights of one layer, in the order they are stored."""

    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


def load_file(model: Any, path: Path, hint: str = "") -> None:
    """Load a file into a network.

    Args:
        model: Built `keras.Model`; changed in place.
        path: `.h5` in the layout that Keras publishes, or `.weights.h5`.
        hint: Ends the text of an error about a file that does not fit.

    Raises:
        WeightsError: When there is no such file or it does not fit; the text names the first
            layer that differs.
    """
    if not path.is_file():
        raise WeightsError(f"The weight file {str(path)!r} does not exist. Check the path.")
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"A weight file must end in '.h5' or '.weights.h5'. Received: {str(path)!r}. "
            "Save one with `model.save_weights('NAME.weights.h5')`."
        )
    try:
        check_weight_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    difference = first_difference(_layers_of_file(path), layers_of_model(model))
    if difference:
        raise WeightsError(
            f"{str(path)!r} does not fit {model.name!r}: {difference}. {hint}".strip()
        )
    try:
        with warnings.catch_warnings():
            # Keras warns of layers that a file does not hold, which then stay random.
            warnings.filterwarnings("error", message="Skipping", category=UserWarning)
            model.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise WeightsError(
            f"{str(path)!r} does not fit {model.name!r}. Keras says: {error}. {hint}".strip()
        ) from error
    check_finite(model, path)


def check_finite(model: Any, path: Path) -> None:
    """Raise a `WeightsError` that names the layer if weights read from a file are NaN or infinite.

    Everything after would go wrong by them: measures, engines, exports.
    """
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            wrong = int((~np.isfinite(values)).sum())
            raise WeightsError(
                f"{path} contains NaN or infinity: {wrong:,} of {values.size:,} weights of "
                f"{variable.path!r}. Use another copy of the file, or train again with a lower "
                "learning rate."
            )


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read as HDF5 ({error}). The download may be incomplete. "
        "Download the file again."
    )


def first_difference(
    stored: Sequence[LayerWeights] | None, network: Sequence[LayerWeights]
) -> str | None:
    """Return how a file and a network first differ, or None when they fit.

    Layers are compared in order, by shape: Keras loads these files so, whatever the names.

    Args:
        stored: Layers of the file; None where its layout does not list them.
        network: Layers of the network that have weights.
    """
    if stored is None:
        return None
    for ours, theirs in zip(network, stored, strict=False):
        if (difference := _layer_difference(theirs, ours)) is not None:
            return difference
    if len(stored) > len(network):
        return _surplus("the file", stored[len(network) :], "network")
    if len(network) > len(stored):
        return _surplus("the network", network[len(stored) :], "file")
    return None


def _layer_difference(stored: LayerWeights, network: LayerWeights) -> str | None:
    if [shape for _, shape in stored.shapes] == [shape for _, shape in network.shapes]:
        return None
    name = network.name if stored.name == network.name else f"{network.name}/{stored.name}"
    for (weight, ours), (_, theirs) in zip(network.shapes, stored.shapes, strict=False):
        if ours != theirs:
            return f"layer {name!r}: file has {weight} {theirs}, network has {weight} {ours}"
    return (
        f"layer {name!r}: file has {len(stored.shapes)} weights, network has {len(network.shapes)}"
    )


def _surplus(owner: str, layers: Sequence[LayerWeights], other: str) -> str:
    listed = ", ".join(repr(layer.name) for layer in layers[:3])
    is_top = len(layers) <= 3 and layers[-1].shapes[-1][1] == (1000,) and owner == "the file"
    top = " (does the file include the top? Use the file without it)" if is_top else ""
    return f"{owner} has {len(layers)} more layers than the {other}, first {listed}{top}"


def layers_of_model(model: Any) -> list[LayerWeights]:
    """Return the layers of a model that have weights, in Keras' order of storing."""
    return [
        LayerWeights(
            layer.name,
            tuple(
                (weight.name, tuple(weight.shape))
                for weight in (*layer.trainable_weights, *layer.non_trainable_weights)
            ),
        )
        for layer in model.layers
        if layer.weights
    ]


def _layers_of_file(path: Path) -> list[LayerWeights] | None:
    """The layers of a file in Keras' legacy layout; None for the layout of `.weights.h5`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            root = file if "layer_names" in file.attrs else file.get("model_weights")
            if root is None:
                return None
            layers = [
                LayerWeights(
                    name,
                    tuple(
                        (weight.rsplit("/", 1)[-1].split(":")[0], tuple(root[name][weight].shape))
                        for weight in _names(root[name], "weight_names")
                    ),
                )
                for name in _names(root, "layer_names")
            ]
    except (OSError, KeyError) as error:
        raise _unreadable(path, error) from error
    return [layer for layer in layers if layer.shapes]


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names; Keras spreads long ones over attributes with numbers behind the name."""
    places = [attribute, *(f"{attribute}{i}" for i in range(len(group.attrs)))]
    raw = [name for place in places if place in group.attrs for name in group.attrs[place]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in raw]
