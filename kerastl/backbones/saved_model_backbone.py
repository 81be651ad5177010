"""Uses an earlier trained model, without its head, as a backbone."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl.backbones import hub
from kerastl.backbones.file_sizes import check_keras_file
from kerastl.backbones.graph import is_graph, read_graph
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.table import is_hub
from kerastl.backbones.weight_files import check_finite
from kerastl.errors import ArgumentError, WeightsError

MODEL = "model.keras"  # of a run directory
_PARTS = ("preprocess", "backbone", "head")
_GOES_WITH_THE_HEAD = (
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling1D,
)
_OF_KERAS_2 = (".h5", ".hdf5")
_CLASSIFIES = ("softmax", "sigmoid")


def is_saved_model(backbone: str) -> bool:
    """Return whether a backbone is named by a path: of a run directory, or of a `.keras` file."""
    if is_hub(backbone):
        return False
    is_path = Path(backbone).suffix in (".keras", *_OF_KERAS_2) or os.sep in backbone
    return is_path or os.path.isfile(os.path.join(backbone, MODEL))  # False of overlong names


def saved_file(backbone: str) -> Path:
    """Return the `.keras` file of a run directory, or the one named.

    Raises:
        WeightsError: there is none.
    """
    path = Path(backbone)
    file = path / MODEL if os.path.isdir(path) else path
    if os.path.isfile(file) and file.suffix in _OF_KERAS_2:
        raise WeightsError(
            f"{backbone!r} is an HDF5 file. For a file that contains only weights, pass the name "
            f"of the network: `build_transfer_model('ResNet50', ..., weights={backbone!r})`. "
            f"Convert a complete model with `keras.saving.load_model({backbone!r}, "
            "compile=False).save('model.keras')`."
        )
    if not os.path.isfile(file) or file.suffix != ".keras":
        raise WeightsError(
            "There is no earlier model "
            f"{backbone!r}{f': the folder has no {MODEL}' if file != path else ''} (in "
            f"{os.getcwd()}). Pass the directory of a finished run, a .keras file, or a name "
            "from `list_backbones()`."
        )
    return file


def read_saved(file: Path) -> keras.Model:
    """Read a `.keras` file.

    Raises:
        WeightsError: Keras cannot read it, or a weight is not finite.
    """
    check_keras_file(file)
    try:
        model = hub.mend_configurations(keras.saving.load_model(file, compile=False))
    except Exception as error:  # a damaged file makes Keras raise all sorts
        if hub.needs_hub(error):
            raise WeightsError(
                f"{file} contains layers of KerasHub, which is not installed. Install it: pip "
                "install 'kerastl[hub]'"
            ) from error
        raise WeightsError(
            f"Cannot read {file}: {(str(error) or repr(error)).splitlines()[0]} "
            "Restore it from a copy, or train it again."
        ) from error
    check_finite(model, file)
    return model


def is_transfer_model(model: keras.Model) -> bool:
    """Return whether a model has the parts of one of `build_transfer_model`."""
    layers = {layer.name: layer for layer in model.layers}
    return all(name in layers for name in _PARTS) and is_graph(layers["backbone"])


def split_transfer_model(model: keras.Model) -> tuple[keras.Model, Preprocessing]:
    """Return the backbone of a model of `build_transfer_model`, and what its pixels need."""
    layer = model.get_layer("preprocess")
    reversed_first = is_graph(layer)
    rescaling = layer.layers[-1] if reversed_first else layer
    scale, offset = (
        tuple(float(one) for one in value) if hasattr(value, "__len__") else float(value)
        for value in (rescaling.scale, rescaling.offset)
    )
    backbone = model.get_layer("backbone")
    if len(backbone.outputs) > 1:  # under a head of all stages
        backbone = keras.Model(backbone.inputs[0], backbone.outputs[-1], name=backbone.name)
    return backbone, Preprocessing(scale, offset, reversed_first)


def without_classifier(model: keras.Model) -> keras.Model:
    """Return a network below its classifier: the last dense layer, if that gives probabilities.

    Dropout and global average pooling below it go with it, so that a map is left where there is
    one. A network that ends otherwise, such as in a dense embedding, keeps its end.

    Args:
        model: Functional, with one output.

    Returns:
        A network that shares the layers of `model`, or `model` itself.
    """
    graph = read_graph(model)
    ((end, _),) = graph.outputs
    layer, given = graph.nodes[end].operation, graph.nodes[end].inputs
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    classifies = isinstance(layer, keras.layers.Softmax) or activation in _CLASSIFIES
    if classifies and not isinstance(layer, keras.layers.Dense) and given:
        layer, given = graph.nodes[given[0][0]].operation, graph.nodes[given[0][0]].inputs
    network = model
    if classifies and isinstance(layer, keras.layers.Dense):
        below = given[0]
        while isinstance(graph.nodes[below[0]].operation, _GOES_WITH_THE_HEAD):
            below = graph.nodes[below[0]].inputs[0]
        network = keras.Model(model.inputs[0], graph.tensor(below), name=model.name)
    return network


def flatten_nested_models(network: keras.Model) -> keras.Model:
    """Return a network with the models inside it laid open, so that its stages are found.

    The layers are shared; those of a model inside whose names are taken are renamed after it.
    """
    if not any(is_graph(layer) for layer in network.layers):
        return network
    names = {layer.name for layer in network.layers}

    def run(layer: Any, *inputs: Any, **options: Any) -> Any:
        if not is_graph(layer):
            return layer(*inputs, **options)
        for part in layer.layers:
            if part.name in names:
                part.name = f"{layer.name}_{part.name}"
            names.add(part.name)
        # Called, a model records itself in the graph; its `call` records its layers.
        return layer.call(keras.tree.pack_sequence_as(layer.input, keras.tree.flatten(inputs)))

    laid_open = keras.models.clone_model(
        network, clone_function=lambda layer: layer, call_function=run
    )
    return flatten_nested_models(
        keras.Model(laid_open.inputs[0], laid_open.outputs[0], name=network.name)
    )


def clone_at_size(
    network: keras.Model,
    size: tuple[int | None, int | None] | None = None,
    *,
    weights: bool = True,
    channels: int | None = None,
) -> keras.Model:
    """Return a copy of the network with new variables.

    Args:
        network: Functional, with one input of images.
        size: (height, width) of its input, None for any. Default: as it is.
        weights: whether it starts with the same weights, or anew.
        channels: of its input; the layers that read it start from the mean of theirs (see
            `channels.widen`). Default: as they are.

    Raises:
        ArgumentError: it cannot take images of that size, or one of its layers cannot be copied.
    """

    def copied(layer: Any) -> Any:
        if is_graph(layer) and len(layer.inputs) == 1:
            inner = channels if layer.inputs[0].shape[-1] == own[-1] else None
            inner_size = None if size is None else (None, None)
            return clone_at_size(layer, inner_size, channels=inner)
        config = layer.get_config()
        return layer.__class__.from_config(config if channels is None else _of_channels(config))

    own = tuple(network.inputs[0].shape[1:])
    shape = (*(own[:-1] if size is None else size), channels or own[-1])
    image = keras.Input(shape, dtype=network.inputs[0].dtype)
    try:
        clone = keras.models.clone_model(
            network,
            input_tensors=keras.tree.pack_sequence_as(network.input, [image]),
            clone_function=copied,
        )
        if weights:
            _copy_weights(network, clone, own[-1], channels)
    except (ValueError, TypeError, NotImplementedError) as error:
        why = next(iter(str(error).split("\n")))
        if channels is not None:
            raise ArgumentError(
                f"{network.name!r} cannot take images with {channels} channels: {why} Choose "
                "another backbone, such as 'MobileNetV2'."
            ) from error
        if size is None:
            raise ArgumentError(
                f"{network.name!r} cannot be copied, because it cannot be saved and loaded: "
                f"{why} Add a `get_config` with the arguments of `__init__` to each of your own "
                "layers."
            ) from error
        raise ArgumentError(
            f"{network.name!r} cannot take images of {shape[:2]}: {why} "
            f"It was built for {own[:2]}; leave `image_size` out."
        ) from error
    for layer in network.layers:  # the constants of its preprocessing are not learnt
        if not weights and isinstance(layer, keras.layers.Normalization):
            _copy_weights(layer, clone.get_layer(layer.name), own[-1], channels)
    return clone


def _of_channels(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a layer with the means of what it has of R, G and B."""

    def mean(value: Any) -> Any:
        return float(np.mean(value)) if np.shape(value) and np.size(value) == 3 else value

    return {
        name: mean(value) if name in ("scale", "offset", "mean", "variance") else value
        for name, value in config.items()
    }


def _copy_weights(source: Any, target: Any, had: int, has: int | None) -> None:
    """Copy the weights of a network or layer; where its input has other channels, from their mean.

    A kernel sums over them, so that it shrinks as they grow; a statistic does not. Other shapes
    that differ are refused by Keras.
    """
    values = []
    for weight, variable in zip(source.get_weights(), target.weights, strict=True):
        sides = list(zip(weight.shape, variable.shape, strict=True))
        if has is not None and has != had and (had, has) in sides:
            axis = sides.index((had, has))
            mean = weight.mean(axis, keepdims=True) * (had / has if weight.ndim > 1 else 1.0)
            weight = np.repeat(mean, has, axis)
        values.append(weight)
    target.set_weights(values)
