"""Models that were trained already as backbones of the next ones."""

import keras
import numpy as np
import pytest

import kerastl
from kerastl.backbones.preprocessing import Preprocessing, preprocessing_of
from kerastl.backbones.saved_model_backbone import (
    clone_at_size,
    is_saved_model,
    split_transfer_model,
    without_classifier,
)
from kerastl.backbones.weights import load_backbone, resolve_name
from kerastl.errors import ArgumentError, WeightsError
from kerastl.frozen.codes import code_network

SMALL = "MobileNetV2(alpha=0.35)"


@pytest.fixture(scope="module")
def first():
    return kerastl.build_transfer_model(SMALL, 3, weights="embedded")


@pytest.fixture(scope="module")
def saved(first, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    folder.mkdir()
    first.save(folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype("float32")


def embedded(model, pixels):
    return np.asarray(keras.Model(model.inputs[0], model.get_layer("pool").output)(pixels))


def test_an_earlier_model_gives_its_backbone_and_gets_a_new_head(first, saved, pixels):
    expected = embedded(first, pixels)
    for backbone in (first, str(saved), str(saved / "model.keras")):
        model = kerastl.build_transfer_model(backbone, 5)
        assert model.output_shape == (None, 5)
        assert len(kerastl.stages(model)) == len(kerastl.stages(first))
        np.testing.assert_array_equal(embedded(model, pixels), expected)


@pytest.mark.parametrize("name", ["tiny", pytest.param(SMALL, marks=pytest.mark.slow)])
def test_an_earlier_model_is_copied(name, first, tiny_backbone):
    first = first if name == SMALL else kerastl.build_transfer_model(tiny_backbone(), 3)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *first.input_shape[1:])).astype("float32")
    before = [np.array(weight) for weight in first.get_weights()]
    model = kerastl.build_transfer_model(first, 3, freeze_depth=0, learning_rate=0.1)
    model.fit(pixels, np.array([0, 2]), epochs=3, verbose=0)  # the head starts at zero
    for one, other in zip(first.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(embedded(model, pixels) - embedded(first, pixels)).max() > 1e-3


def test_an_earlier_model_at_another_size(saved):
    model = kerastl.build_transfer_model(str(saved), 3, image_size=96)
    assert model.input_shape == (None, 96, 96, 3)
    dense = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Dense(4)(keras.layers.Flatten()(dense))
    with pytest.raises(ArgumentError, match="cannot take images of"):
        clone_at_size(keras.Model(dense, x), (16, 16))


def test_an_earlier_model_with_random_weights(saved, first, pixels):
    loaded = load_backbone(str(saved), weights="random")
    assert loaded.weights == "random"
    assert loaded.preprocessing == preprocessing_of("tf")
    own = load_backbone(str(saved))
    assert own.weights == "model"
    kernels = [model.get_layer("Conv1").get_weights()[0] for model in (loaded.model, own.model)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


@pytest.mark.parametrize("mode", ["none", "tf", "torch", "caffe"])
def test_preprocessing_is_kept(mode, tiny_backbone):
    from kerastl.model.build import preprocess_layer

    wanted, network = preprocessing_of(mode), tiny_backbone()
    inputs = keras.Input(network.input_shape[1:])
    backbone = keras.Model(network.inputs[0], network.outputs[0], name="backbone")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(preprocess_layer(wanted)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    found = split_transfer_model(model)[1]
    assert found.reverse_channels == wanted.reverse_channels
    np.testing.assert_allclose(found.scale, wanted.scale, rtol=1e-6)
    np.testing.assert_allclose(found.offset, wanted.offset, rtol=1e-6)
    assert isinstance(found, Preprocessing)


def guide_model(last):
    """A classifier as the Keras guide builds it: with the network as one layer."""
    base = keras.applications.MobileNetV2(
        include_top=False, weights=None, alpha=0.35, input_shape=(64, 64, 3)
    )
    inputs = keras.Input((64, 64, 3))
    x = base(keras.layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(pooled)
    for layer in last:
        x = layer(x)
    return keras.Model(inputs, x), keras.Model(inputs, pooled)


@pytest.mark.parametrize(
    "last",
    [
        [keras.layers.Dense(4, activation="softmax")],
        [keras.layers.Dense(4), keras.layers.Softmax()],
        [keras.layers.Dense(4), keras.layers.Activation("softmax")],
    ],
    ids=["dense", "softmax", "activation"],
)
def test_a_classifier_is_cut_off_and_the_model_inside_laid_open(last, pixels, tmp_path):
    model, expected = guide_model(last)
    network = without_classifier(model)
    assert len(network.output_shape) == 4
    pooled = np.asarray(network(pixels)).mean((1, 2))
    np.testing.assert_allclose(pooled, np.asarray(expected(pixels)), rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "guide.keras")
    built = kerastl.build_transfer_model(str(tmp_path / "guide.keras"), 3)
    assert len(kerastl.stages(built)) > 4
    np.testing.assert_allclose(embedded(built, pixels), pooled, rtol=1e-5, atol=1e-6)


def test_what_is_no_classifier_keeps_its_end():
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(8, activation="relu")(x))
    assert without_classifier(model) is model


def test_what_a_name_stands_for(saved, tmp_path, monkeypatch):
    assert resolve_name(SMALL).record.name == "MobileNetV2"
    assert resolve_name(str(saved)) is None
    monkeypatch.chdir(saved.parent)
    assert is_saved_model("first")
    assert not is_saved_model("MobileNetV2")
    with pytest.raises(WeightsError, match=r"no earlier model .* the folder has no model.keras"):
        load_backbone(str(tmp_path))
    with pytest.raises(WeightsError, match="There is no earlier model 'runs/none'"):
        resolve_name("runs/none")
    with pytest.raises(ArgumentError, match="Do not pass `weights` for the earlier model 'first'"):
        load_backbone("first", weights="embedded")
    (tmp_path / "model.keras").write_bytes(b"no model")
    with pytest.raises(WeightsError, match="Cannot read"):
        load_backbone(str(tmp_path))


def built_by_keras(name, **arguments):
    builder = getattr(keras.applications, name)
    return builder(weights=None, include_top=False, input_shape=(32, 32, 3), **arguments)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("MobileNetV2", "tf"),
        ("VGG16", "caffe"),
        pytest.param("EfficientNetB0", "none", marks=pytest.mark.slow),
    ],
)
def test_a_raw_model_of_keras_gets_the_preprocessing_of_its_family(name, mode):
    raw = built_by_keras(name)
    assert load_backbone(raw).preprocessing == preprocessing_of(mode)
    inputs = keras.Input((32, 32, 3))
    around = keras.Model(inputs, raw(keras.layers.Rescaling(1 / 255)(inputs)), name=raw.name)
    assert load_backbone(around).preprocessing == Preprocessing()
    assert load_backbone(keras.Model(raw.input, raw.output, name="mine")).preprocessing == (
        Preprocessing()
    )


def test_the_codes_of_a_raw_model_are_those_of_its_name():
    raw = built_by_keras("MobileNetV2", alpha=0.35)
    network = code_network(raw, "block_1_project")
    of_name = code_network(
        "MobileNetV2(alpha=0.35)", "block_1_project", weights="random", image_size=32
    )
    of_name.set_weights(network.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(network(pixels), of_name(pixels), rtol=1e-5)


@pytest.mark.parametrize("name", ["EfficientNetV2B0", "MobileNetV3Small", "ConvNeXtTiny"])
def test_a_raw_model_without_the_preprocessing_of_its_family_is_refused(name):
    with pytest.raises(ArgumentError, match="include_preprocessing=True, or put"):
        load_backbone(built_by_keras(name, include_preprocessing=False))


def test_a_whole_model_of_keras_2_is_told_from_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole.h5").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"weights='whole.h5'\).*save\('model.keras'\)"):
        load_backbone("whole.h5")
    with pytest.raises(WeightsError, match="There is no earlier model 'absent.h5'"):
        load_backbone("absent.h5")


def test_a_model_that_holds_nan_is_named(first, tmp_path):
    model = keras.models.clone_model(first)
    model.layers[-1].bias.assign(np.full(3, np.nan))
    model.save(tmp_path / "model.keras")

    with pytest.raises(WeightsError, match=r"model.keras contains NaN or infinity"):
        kerastl.build_transfer_model(str(tmp_path), 3)
