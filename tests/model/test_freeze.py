import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import batch_normalizations, freeze_to, stage_of_variables, stages


@pytest.fixture(scope="module")
def model():
    return build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="random", image_size=64)


def inline_blocks(model):
    return {layer.name for layer in model.get_layer("backbone").layers if layer.trainable_variables}


@pytest.mark.parametrize("depth", [7, 5, 3, 0])
def test_stages_below_the_depth_are_frozen_and_those_above_train(model, depth):
    freeze_to(model, depth)
    chain = stages(model)
    above = {name for stage in chain[depth:] for name in stage.layers}
    weighted = {
        layer.name
        for layer in model.get_layer("backbone").layers
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
    }
    assert inline_blocks(model) == above & weighted
    assert not any(layer.trainable for layer in batch_normalizations(model))


def test_the_way_of_freezing_does_not_matter(model):
    """Keras ignores `trainable = v` where it is v already: a naive order leaves layers open."""
    freeze_to(model, 7)
    model.get_layer("backbone").layers[-3].trainable = True
    freeze_to(model, 7)
    assert inline_blocks(model) == set()
    model.trainable = False
    freeze_to(model, 5)
    assert {name for name in inline_blocks(model) if name.startswith("block_16")}


def test_forgetting_compile_raises(model):
    freeze_to(model, 7)
    with pytest.raises(ValueError, match="compile"):
        model.fit(np.zeros((2, 64, 64, 3)), np.zeros(2), verbose=0)


@pytest.mark.parametrize("depth", [-1, 8, 1.0, None])
def test_a_depth_out_of_range(model, depth):
    with pytest.raises(ArgumentError, match="`freeze_depth` must be an int from 0 to 7"):
        freeze_to(model, depth)


def test_every_trainable_weight_is_in_one_stage(model):
    freeze_to(model, 0)
    groups = stage_of_variables(model)
    grouped = [id(variable) for group in groups.values() for variable in group]
    assert sorted(grouped) == sorted(id(variable) for variable in model.trainable_variables)
    assert set(groups) == {None, *range(7)}


def test_nested_models_are_walked():
    inner = keras.Sequential(
        [keras.Input((16, 16, 4)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    )
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 1)(inputs)
    x = keras.layers.Conv2D(8, 3)(inner(x))
    model = build_transfer_model(keras.Model(inputs, x), 2)
    freeze_to(model, 0)
    assert len([*batch_normalizations(model)]) == 1
    assert not any(layer.trainable for layer in batch_normalizations(model))
    freeze_to(model, len(stages(model)))
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"head"}


def test_a_backbone_of_the_user_stays_as_it_is(tiny_backbone):
    inputs = keras.Input((32, 32, 3))
    given = keras.Model(inputs, tiny_backbone()(inputs))
    before = [np.array(weight) for weight in given.weights]
    model = build_transfer_model(given, 2, scenario="scratch")
    model.fit(np.ones((4, 32, 32, 3), "uint8"), np.arange(4) % 2, verbose=0)
    assert all(map(np.array_equal, before, given.get_weights()))
    assert all(layer.trainable for layer in given._flatten_layers())
    assert {layer.momentum for layer in batch_normalizations(given)} == {0.99}


def test_kernels_under_lora_stay_frozen():
    inputs = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(4, name="dense")
    x = keras.layers.EinsumDense("bhwc,cd->bhwd", (8, 8, 5), name="einsum")(dense(inputs))
    model = build_transfer_model(keras.Model(inputs, x), 2)
    backbone = model.get_layer("backbone")
    for name in ("dense", "einsum"):
        backbone.get_layer(name).enable_lora(2)
    for depth in (0, len(stages(model)), 0):
        freeze_to(model, depth)
        names = [variable.path for variable in backbone.trainable_variables]
        assert not [name for name in names if name.endswith("/kernel")]
        assert len([name for name in names if "lora" in name]) == (0 if depth else 4)
