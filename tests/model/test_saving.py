"""Models with open stages, saved and loaded by Keras alone."""

import shutil
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest

from kerastl.backbones.table import list_backbones
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import freeze_to
from kerastl.model.optimizers import layerwise_optimizer

layers = keras.layers
SIDE = 16


def convolution(*names):
    return [layers.Conv2D(4, 3, 2, padding="same", name=name) for name in names]


def in_sequential():
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *convolution("a", "b", "c")])


def in_nested_models_with_the_same_names():
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for name in ("block_0", "block_1", "block_2"):
        x = keras.Sequential(
            [*convolution("conv"), layers.BatchNormalization(name="bn")], name=name
        )(x)
    return keras.Model(inputs, x)


def in_name_scopes():
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for name in ("a", "b", "c"):
        with keras.name_scope("stage"):
            x = convolution(name)[0](x)
    return keras.Model(inputs, x)


def in_wrappers():
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for name in ("a", "b"):
        x = convolution(name)[0](x)
        x = layers.TimeDistributed(layers.Dense(4, name=f"dense_{name}"), name=f"rows_{name}")(x)
    return keras.Model(inputs, x)


OWN = (in_sequential, in_nested_models_with_the_same_names, in_name_scopes, in_wrappers)


def pixels(model):
    shape = (4, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def groups(model, optimizer):
    """The places, among the trainable weights, of those of each stage."""
    places = {id(variable): place for place, variable in enumerate(model.trainable_variables)}
    return {
        one.name: [places[id(v)] for v in one._trainable_variables] for one in optimizer.optimizers
    }


def rates(optimizer):
    return [float(one.learning_rate) for one in optimizer.optimizers]


def train(model, **arguments):
    model.fit(pixels(model), np.arange(4) % 2, epochs=1, verbose=0, **arguments)


@pytest.mark.parametrize(
    ("backbone", "trained"), [*((own, False) for own in OWN), (in_name_scopes, True)]
)
def test_a_loaded_model_has_the_groups_and_the_state(backbone, trained, tmp_path):
    model = build_transfer_model(backbone(), 2, freeze_depth=0)
    if trained:
        train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels(model)), model(pixels(model)))
    assert type(loaded.optimizer) is keras.optimizers.MultiOptimizer
    found = groups(loaded, loaded.optimizer)
    assert found == groups(model, model.optimizer)
    assert len(found) >= 3
    for old, new in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())


def test_a_model_that_was_not_built_by_us_is_saved_as_well(tmp_path):
    model = in_name_scopes()
    model = keras.Model(model.inputs, layers.Dense(2)(layers.Flatten()(model.output)))
    freeze_to(model, 0).compile(layerwise_optimizer(model, "rmsprop"), "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert groups(loaded, loaded.optimizer) == groups(model, model.optimizer)


def test_weights_that_cannot_be_told_apart_are_named_when_saved(tmp_path):
    """Keras finds the optimizer of a weight by its path, and these have one path once loaded."""
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for name in ("block_0", "block_1"):
        x = keras.Sequential(convolution("conv"), name=name)(x)
    model = freeze_to(keras.Model(inputs, x), 0)
    model.compile(layerwise_optimizer(model), "mse")
    with pytest.warns(UserWarning, match="different names for the layers"):
        model.save(tmp_path / "model.keras")


def test_saving_draws_no_random_numbers(tmp_path):
    import random

    model = build_transfer_model(in_sequential(), 2, freeze_depth=0)
    state = random.getstate()
    model.save(tmp_path / "model.keras")
    assert random.getstate() == state


@pytest.fixture
def loaded(tmp_path):
    model = build_transfer_model(in_sequential(), 2, freeze_depth=0, scenario="large_similar")
    train(model)
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


def test_the_rates_of_a_loaded_model_move_together_again(loaded):
    state = [np.array(variable) for variable in loaded.optimizer.variables]
    before = rates(loaded.optimizer)
    optimizer = layerwise_optimizer(loaded, loaded.optimizer)
    for old, new in zip(state, optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    loaded.compile(optimizer, "sparse_categorical_crossentropy")
    train(loaded, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.01)])
    assert rates(optimizer) == pytest.approx([0.01 * rate / before[0] for rate in before])
    assert len(set(before)) > 1


def test_a_schedule_of_a_loaded_model_keeps_its_ratios(tmp_path):
    model = build_transfer_model(in_sequential(), 2, freeze_depth=0)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 9, warmup_target=0.1, warmup_steps=3)
    model.compile(layerwise_optimizer(model, learning_rate=schedule), "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    optimizer = layerwise_optimizer(loaded, loaded.optimizer)
    assert [one._ratio for one in optimizer.optimizers] == pytest.approx([1, 1, 0.5, 0.25])


def test_what_is_no_optimizer_of_the_model_is_refused(loaded):
    with pytest.raises(ArgumentError, match="leave out the other arguments"):
        layerwise_optimizer(loaded, loaded.optimizer, layer_decay=0.3)
    freeze_to(loaded, 2)
    with pytest.raises(ArgumentError, match="created for other trainable weights"):
        layerwise_optimizer(loaded, loaded.optimizer)


IN_A_FRESH_PROCESS = """
import pathlib, sys, warnings, zlib
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__")
import keras, numpy as np
if "hub" in sys.argv[1]:
    import keras_hub
def check(folder):
    model, kept = keras.saving.load_model(folder / "model.keras"), np.load(folder / "kept.npz")
    np.testing.assert_array_equal(model(kept["x"], training=False), kept["y"])
    state = [zlib.crc32(np.array(variable)) for variable in model.optimizer.variables]
    assert state == kept["state"].tolist()
    places = {id(v): place for place, v in enumerate(model.trainable_variables)}
    for one in model.optimizer.optimizers:
        found = [places[id(v)] for v in one._trainable_variables]
        assert found == kept[one.name].tolist(), one.name
for folder in map(pathlib.Path, sys.argv[1:]):
    check(folder)
    keras.utils.clear_session()
assert "kerastl" not in sys.modules
"""


def keep(model, folder):
    """Save a model with what a fresh process is to find in it."""
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    x = pixels(model)
    state = [zlib.crc32(np.array(variable)) for variable in model.optimizer.variables]
    y = model(x, training=False)
    np.savez(folder / "kept.npz", x=x, y=y, state=state, **groups(model, model.optimizer))


def hub_vit():
    hub = pytest.importorskip("keras_hub")
    return hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def hub_resnet():
    hub = pytest.importorskip("keras_hub")
    return hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[2, 2], stackwise_num_strides=[1, 2], block_type="basic_block",
        image_shape=(32, 32, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param("ConvNeXtTiny", marks=pytest.mark.slow),
        pytest.param(hub_vit, marks=pytest.mark.slow),
        *[pytest.param(name, marks=pytest.mark.sweep) for name in list_backbones()],
        *[pytest.param(own, marks=pytest.mark.sweep) for own in (*OWN, hub_resnet)],
    ],
)
def test_it_loads_in_a_process_without_kerastl(backbone, tmp_path):
    arguments = {"weights": "random", "image_size": 75} if isinstance(backbone, str) else {}
    given = backbone if isinstance(backbone, str) else backbone()
    model = build_transfer_model(given, 2, freeze_depth=0, **arguments)
    name = backbone if isinstance(backbone, str) else backbone.__name__
    if model.count_params() > 3e8:  # Keras saves the state twice, in memory: 7 GB with AdamW
        model.compile(layerwise_optimizer(model, "sgd"), "sparse_categorical_crossentropy")
    keep(model, tmp_path / name / "untrained")
    train(model)
    keep(model, tmp_path / name / "trained")
    del model, given
    keras.utils.clear_session()  # the other process needs the gigabytes
    folders = [str(tmp_path / name / state) for state in ("untrained", "trained")]
    told = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *folders], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr[-2000:]
    shutil.rmtree(tmp_path / name)  # gigabytes, of some
