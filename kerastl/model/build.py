"""Builds preprocessing, backbone, pooling and head as one Functional model."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from kerastl._checks import check_choice, check_float, check_int
from kerastl._task import Task, find_task
from kerastl.backbones.channels import widen
from kerastl.backbones.given_models import OWN_WEIGHTS
from kerastl.backbones.loaded import LoadedBackbone
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.stages import find_stages, split
from kerastl.backbones.weights import load_backbone
from kerastl.data.options import MOST_CHANNELS
from kerastl.distribute import resolve_strategy
from kerastl.errors import ArgumentError
from kerastl.model.detector import detector_head, map_levels
from kerastl.model.freeze import BACKBONE, freeze_to, open_batch_normalization, stages
from kerastl.model.head_names import STAGES, check_head
from kerastl.model.heads import make_head
from kerastl.model.kept_words import Origin, policy_that_keeps
from kerastl.model.optimizers import phase_optimizer
from kerastl.model.pooling import pool_layer, stage_outputs, stage_pool_layer
from kerastl.model.recipes import PUBLISHED, SCENARIOS, Phase, make_recipe

HEAD_LEARNING_RATE = 1e-3  # Keras' default of Adam, and the guide's rate for the head


def build_transfer_model(
    backbone: str | os.PathLike[str] | keras.Model,
    num_classes: int,
    *,
    scenario: str | None = None,
    freeze_depth: int | None = None,
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    cut: int | None = None,
    head: str | keras.layers.Layer = "linear",
    dropout: float = 0.0,
    learning_rate: float | None = None,
    class_names: Sequence[str] | None = None,
    strategy: Any = None,
    task: str = "classification",
) -> keras.Model:
    """Build a classifier on a pretrained backbone, frozen and compiled for its scenario.

    The model takes raw pixels and is an ordinary Functional `keras.Model` whose layers are named
    `preprocess`, `backbone`, `pool` and `head`; a saved `.keras` loads without kerastl.

    Args:
        backbone: a name of `keras.applications`, as Keras writes it, with optional constructor
            arguments (`"MobileNetV2(alpha=0.35)"`); the directory of an earlier run or a
            `.keras` file; or any Functional model that takes raw pixels, which is copied and stays
            as it is. One that `keras.applications` built gets the `preprocess_input` of its family,
            unless it contains preprocessing; put other preprocessing in front of it. For an earlier
            model, its trained backbone is used with a new head.
        num_classes: number of classes, at least 2; for other tasks the number of labels or targets,
            at least 1.
        scenario: `"small_similar"`, `"large_similar"`, `"small_different"`, `"large_different"`,
            or another recipe (`"guide"`, `"fastai"`, `"bit"`, `"scratch"`). Sets the freeze depth
            and the rates of its last phase. Default: the head only.
        freeze_depth: int from 0 (everything trains) to the number of stages (head only);
            overrides the scenario's.
        weights: `"imagenet"`, `"embedded"`, `"random"` or a file; not for an earlier model.
        image_size: height and width in pixels of the input. Default: the backbone's native size.
        channels: number of channels of the images. Default: that of the backbone. For other
            numbers, the first layer of an RGB backbone is widened with the mean of its kernels
            (`backbones.channels.widen`).
        cut: number of stages of the backbone to keep, from 1. Later stages are removed, and the
            head uses pooled activations of an earlier stage (CS231n's advice for few, different
            images). Default: all.
        head: `"linear"`, a Dense layer on the pooled end of the backbone; `"stages"`, a Dense layer
            on mean and standard deviation of each channel at the end of every stage, which is
            more accurate while the backbone stays frozen; `"mlp"`, with a hidden layer of 512
            rectified units as in fastai; or `"mlp:256,128"`, with hidden layers of these units. A
            probe can initialise the first two. A Keras layer from embeddings `(batch, dim)` to
            `(batch, units)`, such as a `keras.Sequential`, is copied and placed before the last
            Dense layer.
        dropout: dropout rate before each dense layer of the head, from 0 to below 1. Default 0,
            because a head that is fitted by a probe is already regularised. The Keras guide uses
            0.2.
        learning_rate: learning rate of the head; overrides the scenario's. Default 1e-3.
        class_names: one name per class, stored as `model.class_names` and in the saved model.
        strategy: the devices that share each batch: `"mirrored"` for all GPUs of this machine,
            `"multi_worker"` for several machines, or a `tf.distribute.Strategy`. `fine_tune` uses
            the strategy of the model. Default: the strategy of the current scope, or one device.
        task: `"classification"`: one class per image (softmax). `"multi_label"`: any number of
            labels per image (sigmoid). `"regression"`: numbers (no activation).
            `"detection"`: boxes of objects; the head reads maps of the backbone (`model.detector`).

    Returns:
        A compiled `keras.Model`: images `(batch, height, width, channels)`, RGB from 0 to 255, any
        real dtype, to probabilities `(batch, num_classes)` in float32, or to values for regression.

    Raises:
        ArgumentError: an argument is invalid.
        WeightsError: the weights cannot be loaded or do not fit.

    Example:
        >>> model = kerastl.build_transfer_model("ResNet50", 5, scenario="large_similar")
        >>> model.fit(data.train.batches((224, 224)), epochs=3)
    """
    if isinstance(backbone, os.PathLike):
        backbone = os.fspath(backbone)
    wanted = find_task(task)
    check_int("num_classes", num_classes, wanted.least_outputs)
    if not isinstance(head, keras.layers.Layer):
        check_head("head", head)
    if wanted.has_boxes and (head != "linear" or dropout):
        raise ArgumentError(
            f"With task={task!r} the head is the task's own. Received: head={head!r}, "
            f"dropout={dropout}. Leave both out."
        )
    check_float("dropout", dropout, 0.0, 0.99)
    if scenario is not None:
        check_choice("scenario", scenario, SCENARIOS + PUBLISHED)
    if class_names is not None and len(class_names) != num_classes:
        raise ArgumentError(
            f"`class_names` must name {wanted.count(num_classes)}. Received {len(class_names)}: "
            f"{list(class_names)!r}"
        )
    names = None if class_names is None else [str(name) for name in class_names]
    devices = resolve_strategy(strategy)
    with devices.scope():
        loaded = load_backbone(backbone, weights=weights, image_size=image_size)
        if channels is not None:
            loaded = widen(loaded, check_int("channels", channels, 1, MOST_CHANNELS))
        network = loaded.model if cut is None else _below(loaded.model, cut)
        ends: Any = network.outputs[0]
        if wanted.has_boxes:
            ends = map_levels(network)
            above = [detector_head(ends, num_classes)]
        else:
            ends = stage_outputs(network) if head == STAGES else ends
            pool = stage_pool_layer(ends) if head == STAGES else pool_layer(len(ends.shape))
            above = [pool, make_head(head, num_classes, dropout, wanted.activation)]
        name = backbone if isinstance(backbone, str) else backbone.name
        kept = loaded.weights if loaded.weights == OWN_WEIGHTS else str(weights)
        policy = policy_that_keeps(Origin(name, kept, cut), names)
        first = preprocess_layer(loaded.preprocessing, policy)
        model = _assemble(loaded, network, ends, [first, *above], wanted.model_name)
        _freeze_and_compile(model, wanted, scenario, freeze_depth, learning_rate)
    if names is not None:
        model.class_names = names
    return model


def _below(backbone: keras.Model, cut: int) -> keras.Model:
    """Return the first `cut` stages of a backbone."""
    chain = find_stages(backbone)
    advice = f"Leave it out to keep all {len(chain)} stages."
    stage = chain[check_int("cut", cut, 1, len(chain), advice) - 1]
    if len(stage.output_shapes) > 1:
        raise ArgumentError(
            f"Stage {cut} of backbone {backbone.name!r} ends in {len(stage.output_shapes)} "
            f"tensors, but a head needs one tensor. Received: cut={cut}. {advice}"
        )
    return split(backbone, stage)[0]


def _assemble(
    loaded: LoadedBackbone,
    network: keras.Model,
    outputs: Any,
    layers: Sequence[keras.layers.Layer],
    name: str,
) -> keras.Model:
    preprocess, *above = layers
    channels = network.inputs[0].shape[-1]
    inputs = keras.Input((*loaded.image_size, channels), name="image")
    x = preprocess(inputs)
    x = keras.Model(network.inputs[0], outputs, name=BACKBONE)(x)
    for layer in above:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def preprocess_layer(preprocessing: Preprocessing, dtype: Any = None) -> Any:
    """Return the layer that turns raw RGB pixels into what the backbone was pretrained on."""
    scale, offset = preprocessing.scale, preprocessing.offset
    if not preprocessing.reverse_channels:
        return keras.layers.Rescaling(scale, offset, dtype=dtype, name="preprocess")
    pixels = keras.Input((None, None, 3))
    scaled = keras.layers.Rescaling(scale, offset, dtype=dtype)(pixels[..., ::-1])
    return keras.Model(pixels, scaled, name="preprocess")


def _freeze_and_compile(
    model: keras.Model,
    task: Task,
    scenario: str | None,
    freeze_depth: int | None,
    learning_rate: float | None,
) -> None:
    num_outputs = task.num_names(model.output_shape[-1])
    num_stages = len(stages(model))
    phase = Phase("head", num_stages, epochs=1, learning_rate=HEAD_LEARNING_RATE, clipnorm=0.0)
    if scenario is not None:
        # The counts steer epochs and mixup alone, which a model does not hold.
        recipe = make_recipe(
            scenario, num_stages=num_stages, num_images=1000, num_classes=num_outputs
        )
        if recipe.phases[-1].method == "gradient":
            phase = recipe.phases[-1]
    freeze_to(model, phase.freeze_depth if freeze_depth is None else freeze_depth)
    if phase.train_batch_norm:
        open_batch_normalization(model)
    rate = phase.learning_rate if learning_rate is None else learning_rate
    optimizer = phase_optimizer(model, phase, rate)
    model.compile(optimizer, loss=task.loss, metrics=task.compiled_metrics(num_outputs))
