"""KerasHub backbones, from a preset or from a model."""

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._checks import check_packages, did_you_mean
from kerastl.backbones.hub_graph import inline_blocks, make_serializable
from kerastl.backbones.loaded import LoadedBackbone, check_image_input
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.table import HUB
from kerastl.data.split import both_sides
from kerastl.errors import ArgumentError, WeightsError

PACKAGE = "keras_hub"
WEIGHTS = ("imagenet", "random")
ANY_SIZE = 224
# What their pretraining reads out: the first token. KerasHub's classifiers of ViT and DeiT take it
# (`pooling="token"`); DINOv2 and DINOv3 are evaluated by it (https://arxiv.org/abs/2304.07193).
CLASS_TOKEN = ("ViTBackbone", "DeiTBackbone", "DINOV2Backbone", "DINOV3Backbone")


def is_hub_backbone(model: Any) -> bool:
    """Return whether a model is a backbone class of KerasHub, which need not be installed."""
    return type(model).__module__.split(".")[0] == PACKAGE


def check_handle(backbone: str) -> str:
    """Return the handle after `hub:`, after checking it with KerasHub.

    Args:
        backbone: `"hub:"` and a preset of KerasHub, a folder that `backbone.save_to_preset` wrote,
            or an address such as `"hf://timm/resnet18.a1_in1k"`, which is not looked up here.

    Raises:
        ArgumentError: When KerasHub is not installed, or there is no such preset or folder.
    """
    handle = backbone.removeprefix(HUB)
    check_packages(f"backbone={backbone!r}", [PACKAGE], "hub")
    if "://" in handle or (Path(handle) / "config.json").is_file():
        return handle
    import keras_hub

    presets = keras_hub.layers.ImageConverter.presets
    if handle in presets:
        return handle
    raise ArgumentError(
        f"`backbone` must be 'hub:' and a preset of KerasHub for images, a folder that "
        "`backbone.save_to_preset(folder)` wrote (with its config.json), or an address such as "
        f"'hf://timm/resnet18.a1_in1k'. Received: backbone={backbone!r}."
        f"{did_you_mean(handle, presets)} `keras_hub.layers.ImageConverter.presets` lists the "
        f"{len(presets)} presets."
    )


def load_preset(
    backbone: str, weights: str, image_size: int | tuple[int, int] | None
) -> LoadedBackbone:
    """Return a preset's network, and what its image converter does to the pixels.

    Args:
        backbone: As in `check_handle`.
        weights: `"imagenet"` for the preset's own, whatever they were trained on; `"random"`.
        image_size: Side, or (height, width), in pixels. Defaults to what the network takes, else
            to the size of the preset's image converter, else to 224.

    Raises:
        ArgumentError: When an argument cannot be meant, or the preset is no network of images.
        WeightsError: When the preset is not found, and downloading it fails.
    """
    wanted = None if image_size is None else both_sides(image_size)
    if weights not in WEIGHTS:
        raise ArgumentError(
            "`weights` of a KerasHub backbone must be 'imagenet', for the weights of the "
            f"preset, or 'random'. Received: weights={weights!r} for {backbone!r}. Save other "
            "weights with `backbone.save_to_preset(folder)`, and pass 'hub:folder'."
        )
    handle = check_handle(backbone)
    converter = _converter(handle)
    preprocessing = preprocessing_of_converter(converter)
    network = _network(handle, weights, {})
    own = fixed_size(network)
    size = wanted or own or converter.image_size or (ANY_SIZE, ANY_SIZE)
    if own is not None and own != size:
        key = "image_shape" if "image_shape" in network.get_config() else "input_shape"
        network = _network(handle, weights, {key: (*size, 3)}, own)
    return LoadedBackbone(as_graph(network, size), backbone, preprocessing, size, weights)


def as_graph(backbone: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Return a backbone of KerasHub as a plain Functional model of its layers.

    Its blocks are layers of the graph (see `hub_graph.inline_blocks`), so there are stages to find.
    Of a network that gives its maps of all sizes the smallest is the output; of ViT, DeiT, DINOv2
    and DINOv3 the class token, `(batch, dim)`; of other transformers the tokens, whose mean
    `build_transfer_model` takes.

    Args:
        backbone: Of KerasHub; its layers and weights are shared.
        image_size: (height, width) in pixels of the input.

    Raises:
        ArgumentError: When it is no network of images, or its graph cannot be saved.
    """
    check_image_input(backbone)
    inputs = keras.Input((*image_size, 3), name=backbone.inputs[0].name)
    structure = keras.tree.map_structure(lambda _: inputs, backbone.input)
    outputs = keras.tree.flatten(backbone.call(structure))
    output = min(outputs, key=lambda tensor: np.prod(tensor.shape[1:-1]))
    tokens = getattr(backbone, "use_class_token", True) and type(backbone).__name__ in CLASS_TOKEN
    whole = keras.Model(inputs, output[:, 0] if tokens else output, name=backbone.name)
    network = inline_blocks(whole, PACKAGE)
    _check_twin(whole, network)
    return network


def mend_configurations(model: keras.Model) -> keras.Model:
    """Let a loaded model be saved again (see `hub_graph.make_serializable`)."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if is_hub_backbone(layer) and not isinstance(layer, keras.Model):
            make_serializable(layer)
    return model


def needs_hub(error: Exception) -> bool:
    """Return whether a model could not be loaded for want of KerasHub."""
    return PACKAGE in str(error) and importlib.util.find_spec(PACKAGE) is None


def preprocessing_of_converter(converter: Any) -> Preprocessing:
    """Return the preprocessing of a `keras_hub.layers.ImageConverter`, without its resizing.

    Raises:
        ArgumentError: When it does more than to scale and shift the channels.
    """
    import keras_hub

    plain = keras_hub.layers.ImageConverter
    given = ((converter.scale, 1.0), (converter.offset, 0.0))
    values = [np.ravel(default if value is None else value) for value, default in given]
    affine = all(value.size in (1, 3) for value in values)
    if type(converter).call is not plain.call or not affine:
        raise ArgumentError(
            f"The image converter {type(converter).__name__} of the preset does more than scale "
            "and shift the three channels. A kerastl model cannot do this. Use another preset."
        )
    scale, offset = (
        float(value[0]) if value.size == 1 else tuple(float(each) for each in value)
        for value in values
    )
    return Preprocessing(scale, offset)


def _converter(handle: str) -> Any:
    import keras_hub

    folder = Path(handle)
    if folder.is_dir() and not (folder / "image_converter.json").is_file():
        raise ArgumentError(
            f"{handle!r} has no image_converter.json, which describes the preprocessing. Save "
            "one next to the backbone: `keras_hub.layers.ImageConverter(scale=1 / "
            f"255).save_to_preset({handle!r})`; leave out `scale` and `offset` for raw pixels."
        )
    try:
        return keras_hub.layers.ImageConverter.from_preset(handle)
    except Exception as error:  # of the network, of the file, of KerasHub
        raise WeightsError(_not_to_be_had(handle, error)) from error


def _network(
    handle: str, weights: str, shape: dict[str, tuple[int, ...]], own: tuple[int, int] | None = None
) -> Any:
    import keras_hub

    try:
        return keras_hub.models.Backbone.from_preset(
            handle, load_weights=weights != "random", **shape
        )
    except Exception as error:
        if own is None:
            raise WeightsError(_not_to_be_had(handle, error)) from error
        raise WeightsError(
            f"The preset {handle!r} has {own} pixels, and KerasHub cannot build it with "
            f"{next(iter(shape.values()))[:2]}: {_first_line(error)} Leave `image_size` out."
        ) from error


def _not_to_be_had(handle: str, error: Exception) -> str:
    return (
        f"The preset {handle!r} of KerasHub failed to load: {_first_line(error)} kerastl looks "
        "in the caches of kagglehub (KAGGLEHUB_CACHE, by default ~/.cache/kagglehub) and "
        "huggingface_hub (HF_HOME), and then downloads the preset. On a machine with a network, "
        "save it with `keras_hub.models.Backbone.from_preset(...).save_to_preset(folder)` and "
        "`keras_hub.layers.ImageConverter.from_preset(...).save_to_preset(folder)`, bring the "
        "folder here and give 'hub:folder'."
    )


def _first_line(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text if text.endswith(".") else f"{text}."


def fixed_size(network: keras.Model) -> tuple[int, int] | None:
    """Return the (height, width) that a backbone of KerasHub takes alone, or None."""
    height, width = check_image_input(network)
    return None if height is None or width is None else (height, width)


def _check_twin(whole: keras.Model, network: keras.Model) -> None:
    """Raise unless a network that is saved and loaded gives what KerasHub's own does."""
    shape = (1, *network.inputs[0].shape[1:])
    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    expected = np.asarray(whole(pixels))
    try:
        twin = keras.Model.from_config(network.get_config())
        twin.set_weights(network.get_weights())
        found = np.asarray(twin(pixels))
    except Exception as error:  # whatever a layer that forgets its arguments raises
        raise ArgumentError(_not_to_be_saved(whole, _first_line(error))) from error
    scale = np.abs(expected).max()
    if found.shape != expected.shape or np.abs(found - expected).max() > 1e-4 * scale:
        raise ArgumentError(
            _not_to_be_saved(whole, "The rebuilt network computes different outputs.")
        )


def _not_to_be_saved(whole: keras.Model, why: str) -> str:
    return (
        f"The backbone {whole.name!r} of KerasHub cannot be saved as a graph of layers. {why} "
        "Use another preset."
    )
