"""Sets which layers train; the only module that sets `trainable`."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from kerastl._checks import check_int
from kerastl.backbones.stages import Stage, find_stages
from kerastl.distribute import num_replicas
from kerastl.errors import KerastlError

BACKBONE = "backbone"


def backbone_of(model: keras.Model) -> keras.Model:
    """Return the backbone inside a model of `build_transfer_model`, or the model itself."""
    for layer in model.layers:
        if layer.name == BACKBONE and isinstance(layer, keras.Model):
            return layer
    return model


def stages(model: keras.Model) -> list[Stage]:
    """Return the stages of a model's backbone, from the input upwards.

    Args:
        model: a model of `build_transfer_model`, or any Functional `keras.Model`.

    Returns:
        A list of `Stage`: name, layers, parameters, share of the multiply-adds, output shape,
        bytes per image (float16). The length of the list is the largest `freeze_depth`.

    Example:
        >>> [stage.name for stage in kerastl.stages(model)]
        ['pool1_pool', 'conv2_block3_out', ..., 'conv5_block3_out']
    """
    return find_stages(backbone_of(model))


def freeze_to(model: keras.Model, depth: int) -> keras.Model:
    """Freeze the first `depth` stages of the backbone, and open the others and the head.

    BatchNormalization of the backbone stays frozen through its `trainable` flag at any depth,
    because training its statistics on little data destroys what the network has learned
    (https://keras.io/guides/transfer_learning). `training=False` in the call is not enough, because
    `fit` overrides it. Kernels that `enable_lora` froze stay frozen too.

    If you call `fit` yourself, dropout stays active in frozen stages, as always in Keras;
    `fine_tune` turns it off.

    You must compile the model again before training; otherwise `fit` raises an error.

    Args:
        model: a model of `build_transfer_model`.
        depth: int from 0 (everything trains) to `len(stages(model))` (only the head trains).

    Returns:
        `model`, changed in place.

    Raises:
        ArgumentError: `depth` is out of range.

    Example:
        >>> kerastl.freeze_to(model, 3)
        >>> model.compile(kerastl.layerwise_optimizer(model), "sparse_categorical_crossentropy")
    """
    backbone = backbone_of(model)
    chain = find_stages(backbone)
    check_int("freeze_depth", depth, 0, len(chain), f"Use {len(chain)} to train the head only.")
    frozen = {name for stage in chain[:depth] for name in stage.layers}
    # Keras ignores an assignment of the value that a model has already, so each layer is set.
    model.trainable = True
    for layer in model.layers:
        for leaf in _flat(layer) if layer is not backbone else ():
            leaf.trainable = True  # the BatchNormalization of a head has nothing to lose
    backbone.trainable = True
    for layer in backbone.layers:
        _set_trainable(layer, layer.name not in frozen)
    model.compiled = False
    return model


@contextlib.contextmanager
def inference_below(model: keras.Model, depth: int) -> Iterator[None]:
    """Keep dropout and stochastic depth of the first `depth` stages off while training.

    They stay active in a frozen layer (EfficientNet has such); what is frozen is inference.
    """
    backbone = backbone_of(model)
    names = {name for stage in find_stages(backbone)[:depth] for name in stage.layers}
    layers = [leaf for layer in backbone.layers if layer.name in names for leaf in _flat(layer)]
    held = [(layer, name, getattr(layer, name)) for layer in layers for name in _rates(layer)]
    for layer, name, _ in held:
        setattr(layer, name, 0.0)
    try:
        yield
    finally:
        for layer, name, rate in held:
            setattr(layer, name, rate)


def _rates(layer: Any) -> list[str]:
    """Names of the rates of dropout, and of stochastic depth as KerasHub's networks have it."""
    if isinstance(layer, keras.layers.Dropout):
        return ["rate"]
    if not type(layer).__name__.endswith("DropPath"):
        return []
    return [name for name in ("rate", "drop_prob") if hasattr(layer, name)]


def open_batch_normalization(model: keras.Model) -> None:
    """Let BatchNormalization train, in a network that has no pretrained statistics to lose.

    Its moving statistics are made to follow within tens of steps: the 0.999 of some architectures
    is for a million images, and would leave the statistics of a short training at their start.
    """
    for layer in batch_normalizations(model):
        layer.trainable = True
        layer.momentum = min(layer.momentum, 0.9)
        layer.synchronized = num_replicas(model) > 1  # statistics of the whole batch
    model.compiled = False


def _set_trainable(layer: Any, trainable: bool) -> None:
    for leaf in _flat(layer):
        leaf.trainable = trainable
    for leaf in _flat(layer):
        if isinstance(leaf, keras.layers.BatchNormalization):
            leaf.trainable = False
        if getattr(leaf, "lora_enabled", False):  # which trains two small matrices in its place
            for weight in leaf.weights:
                if weight.name in ("kernel", "embeddings"):
                    weight.trainable = False


def _flat(layer: Any) -> list[Any]:
    """A layer and all layers inside it, the outermost first."""
    return list(layer._flatten_layers(include_self=True, recursive=True))


def batch_normalizations(model: keras.Model) -> Iterator[Any]:
    """Yield every BatchNormalization layer, however deeply nested."""
    for layer in _flat(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def stage_of_variables(model: keras.Model) -> dict[int | None, list[Any]]:
    """Group the trainable weights by stage; the head's are under `None`.

    Every trainable weight is in exactly one group, or it is an error that names it.
    """
    backbone = backbone_of(model)
    stage_of_layer = {name: stage.index for stage in find_stages(backbone) for name in stage.layers}
    groups: dict[int | None, list[Any]] = {}
    seen: set[int] = set()
    for layer in backbone.layers:
        for variable in layer.trainable_variables:
            if id(variable) in seen:
                continue
            if layer.name not in stage_of_layer:
                raise KerastlError(f"The weight {variable.path!r} does not belong to a stage.")
            seen.add(id(variable))
            groups.setdefault(stage_of_layer[layer.name], []).append(variable)
    for variable in model.trainable_variables:
        if id(variable) not in seen:
            groups.setdefault(None, []).append(variable)
    return groups
