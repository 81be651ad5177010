import sys

import keras
import numpy as np
import pytest
from keras import layers

from kerastl.backbones.weights import WEIGHTS_DIR
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, WeightsError
from kerastl.frozen.activations import extract_embeddings
from kerastl.frozen.codes import CodeSample, code_network, extract_codes, stream_codes

TOLERANCE = 1e-3  # of engines
TOP_FILE = "mobilenet_7_5_224_tf.h5"


def split_of(size, count=10, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype("uint8")
    data = load_data((images, np.arange(count) % 2), test_fraction=0, validation_fraction=0)
    return data.train


def pixels_of(split, size):
    return np.concatenate(list(split.images(size).as_numpy_iterator())).astype("float32")


def assert_close(actual, wanted):
    wanted = np.asarray(wanted)
    assert actual.dtype == np.float32
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.fixture
def dense_top():
    """A convolution, a map, and two dense layers with a rectifier, as VGG has them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.Conv2D(16, 3, 4, activation="relu", name="map")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(24, "relu", name="fc1")(x)
    x = layers.Dense(20, "relu", name="fc2")(x)
    return keras.Model(inputs, layers.Dense(3, "softmax", name="predictions")(x))


def test_codes_are_those_of_keras(dense_top):
    split = split_of(32)
    pixels = pixels_of(split, 32)
    for name in ("fc1", "fc2", "predictions"):
        expected = keras.Model(dense_top.input, dense_top.get_layer(name).output).predict(pixels)
        assert_close(extract_codes(dense_top, split, at=name, batch_size=4), expected)
    assert extract_codes(dense_top, split, at="fc2").min() == 0  # rectified, and some are off
    maps = keras.Model(dense_top.input, dense_top.get_layer("map").output).predict(pixels)
    for pool, wanted in {"avg": maps.mean((1, 2)), "max": maps.max((1, 2)), "none": maps}.items():
        assert_close(extract_codes(dense_top, split, at="map", pool=pool), wanted)
    assert_close(extract_codes(dense_top, split), dense_top.predict(pixels))


def test_several_splits_follow_one_another(dense_top):
    first, second = split_of(32, 10, seed=1), split_of(32, 6, seed=2)
    both = extract_codes(dense_top, [first, second], at="fc2", batch_size=4)
    assert_close(both[10:], extract_codes(dense_top, second, at="fc2"))
    assert len(both) == 16


def test_without_a_layer_codes_are_our_embeddings(model):
    split = split_of(32)
    codes = extract_codes(model, split)
    wanted = extract_embeddings(model, split, store=None).x
    assert np.abs(codes - wanted).max() <= 3e-3 * np.abs(wanted).max()  # the store has float16
    assert_close(extract_codes(model, split, at="head"), model.predict(pixels_of(split, 32)))


def test_layers_inside_a_model_of_ours(model):
    backbone = model.get_layer("backbone")
    name = backbone.layers[-3].name
    split = split_of(32)
    inner = keras.Model(backbone.input, backbone.get_layer(name).output)
    wanted = inner.predict(model.get_layer("preprocess")(pixels_of(split, 32))).mean((1, 2))
    assert_close(extract_codes(model, split, at=name), wanted)
    assert_close(extract_codes(model, split, at=f"backbone/{name}"), wanted)


def test_a_saved_network_of_codes_loads_and_says_the_same(model, tmp_path):
    network = code_network(model, model.get_layer("backbone").layers[-3].name, pool="max")
    network.save(tmp_path / "codes.keras")
    pixels = pixels_of(split_of(32), 32)
    again = keras.saving.load_model(tmp_path / "codes.keras")
    np.testing.assert_array_equal(again.predict(pixels), network.predict(pixels))


@pytest.mark.slow
def test_fc2_of_vgg16_is_that_of_keras():
    """The only test that builds the 138 million parameters."""
    keras.utils.set_random_seed(0)
    split = split_of(224, 3)
    network = code_network("VGG16", "fc2", weights="random")
    assert network.output_shape == (None, 4096)
    (codes,) = stream_codes(network, split)
    vgg = next(layer for layer in network.layers if layer.weights)
    cut = keras.Model(vgg.input, vgg.get_layer("fc2").output)
    caffe = keras.applications.vgg16.preprocess_input(pixels_of(split, 224))
    assert_close(codes, cut.predict(caffe))
    assert codes.min() >= 0
    assert (codes > 0).any()


def test_the_top_is_built_only_where_the_layer_lies_there():
    below = code_network("VGG16", "block5_pool", weights="random", image_size=32)
    assert below.output_shape == (None, 512)
    assert below.count_params() < 15e6
    assert code_network("VGG16", weights="random", image_size=32).output_shape == (None, 512)


def test_names_that_keras_numbers_are_found_in_a_network_built_later():
    """Keras numbers unnamed layers from one building to the next."""
    keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(75, 75, 3))
    network = code_network("InceptionV3", "mixed0", weights="random", image_size=75)
    assert network.output_shape == (None, 256)


@pytest.mark.slow
def test_a_file_with_the_top_under_its_published_name(tmp_path, monkeypatch):
    """At 64 pixels, where the weights of 224 serve; random ones here."""
    name = "MobileNet(alpha=0.25)"
    keras.utils.set_random_seed(0)
    whole = keras.applications.MobileNet((64, 64, 3), alpha=0.25, weights=None)
    path, topless = (
        tmp_path / "mobilenet_2_5_224_tf.h5",
        tmp_path / "mobilenet_2_5_224_tf_no_top.h5",
    )
    whole.save(path)
    keras.Model(whole.input, whole.get_layer("conv_pw_13_relu").output).save(topless)
    monkeypatch.setenv(WEIGHTS_DIR, str(tmp_path))
    split = split_of(64, 3)
    pixels = keras.applications.mobilenet.preprocess_input(pixels_of(split, 64))
    codes = extract_codes(name, split, at="predictions", image_size=64)
    assert_close(codes, whole.predict(pixels))
    again = extract_codes(name, split, at="predictions", image_size=64, weights=str(path))
    np.testing.assert_array_equal(codes, again)
    with pytest.raises(WeightsError, match=r"does not fit.*The file must include the top"):
        extract_codes(name, split, at="predictions", image_size=64, weights=str(topless))


@pytest.mark.slow
def test_the_published_file_with_the_top(shared_file, monkeypatch):
    folder = shared_file(f"weights/{TOP_FILE}").parent
    monkeypatch.setenv(WEIGHTS_DIR, str(folder))
    split = split_of(224, 3)
    codes = extract_codes("MobileNet(alpha=0.75)", split, at="predictions")
    whole = keras.applications.MobileNet(alpha=0.75, weights=str(folder / TOP_FILE))
    pixels = keras.applications.mobilenet.preprocess_input(pixels_of(split, 224))
    assert_close(codes, whole.predict(pixels))
    path = str(folder / TOP_FILE)
    again = extract_codes("MobileNet(alpha=0.75)", split, at="predictions", weights=path)
    np.testing.assert_array_equal(codes, again)
    with pytest.raises(WeightsError, match=r"does not fit.*The file must include the top"):
        extract_codes(
            "MobileNet(alpha=0.75)", split, at="predictions",
            weights=str(folder / "mobilenet_7_5_224_tf_no_top.h5"),
        )  # fmt: skip


def test_a_top_that_cannot_be_had_names_its_file(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise Exception("no network")

    shared = sys.modules[keras.applications.VGG16.__module__].file_utils
    monkeypatch.setattr(shared, "get_file", refuse)
    monkeypatch.setenv(WEIGHTS_DIR, str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="no file 'mobilenet_2_5_224_tf.h5'"):
        code_network("MobileNet(alpha=0.25)", "conv_preds")
    with pytest.raises(ArgumentError, match="embedded weights do not include the top"):
        code_network("MobileNetV2(alpha=0.35)", "predictions", weights="embedded")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": "fc3", "weights": "random"}, "layer of 'VGG16'. Received: at='fc3'. Did you mean"),
        ({"at": "fc2", "pool": "mean"}, "`pool` must be one of 'avg', 'max', 'none'"),
        ({"at": "fc2", "weights": "random", "image_size": 8}, "`image_size` must be"),
    ],
)
def test_what_cannot_be_meant(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        code_network("VGG16", **arguments)


def test_a_model_keeps_its_weights_and_its_size(dense_top):
    with pytest.raises(ArgumentError, match="Do not pass `weights`"):
        code_network(dense_top, "fc2", weights="random")
    with pytest.raises(ArgumentError, match="`image_size` must be"):
        code_network(dense_top, "fc2", image_size=64)
    with pytest.raises(ArgumentError, match="Did you mean 'fc2'"):
        code_network(dense_top, "fc22")


def test_a_sample_keeps_its_rows_and_tells_of_all():
    codes = np.arange(-3, 27, dtype="float32").reshape(10, 3)
    sample = CodeSample(np.array([0, 3, 4, 9]))
    passed = list(sample.passing(codes[start : start + 4] for start in range(0, 10, 4)))
    np.testing.assert_array_equal(np.concatenate(passed), codes)
    np.testing.assert_array_equal(sample.codes, codes[[0, 3, 4, 9]])
    assert (sample.lowest, sample.num_zeros, sample.num_values) == (-3, 1, 30)
