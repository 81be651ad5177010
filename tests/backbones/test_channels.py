"""Networks of RGB images for images of other channels, from the data to the export."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerastl
from kerastl.backbones.channels import widen
from kerastl.backbones.weights import load_backbone
from kerastl.data.augment import AUGMENTATIONS
from kerastl.errors import ArgumentError, DataError
from tests import command

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (4, 32, 32, 1)).astype("float32")


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_equal_channels_answer_as_the_gray_image_does(tiny_backbone, channels):
    backbone = tiny_backbone()
    rgb = kerastl.build_transfer_model(backbone, 3)
    wide = kerastl.build_transfer_model(backbone, 3, channels=channels)
    for model in (rgb, wide):
        model.layers[-1].set_weights([np.ones((24, 3)) * [0.1, 0.2, -0.3], np.zeros(3)])

    assert wide.input_shape == (None, 32, 32, channels)
    np.testing.assert_allclose(
        wide(np.repeat(GRAY, channels, -1)), rgb(np.repeat(GRAY, 3, -1)), atol=1e-5
    )
    names = [weight.path for weight in backbone.weights]
    assert len(names) == len(wide.get_layer("backbone").weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2(alpha=0.35)", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_families(name):
    """As far as a family treats the channels alike, the answers to gray images are the same."""
    loaded = dataclasses.replace(
        load_backbone(name, weights="random", image_size=75), weights="model"
    )
    wide = widen(loaded, 5)

    rules = loaded.preprocessing
    images = RNG.uniform(0, 255, (2, 75, 75, 1)).astype("float32")
    rgb = np.repeat(images, 3, -1) * np.mean(rules.scale) + np.mean(rules.offset)
    five = np.repeat(images, 5, -1) * wide.preprocessing.scale + wide.preprocessing.offset
    got, expected = wide.model(five.astype("float32")), loaded.model(rgb.astype("float32"))
    assert got.shape == expected.shape
    of_each = name in ("ConvNeXtTiny", "EfficientNetV2B0")  # means of R, G and B inside
    assert np.abs(got - expected).mean() < (0.3 if of_each else 1e-3) * np.abs(expected).mean()


def test_random_weights_differ_between_channels():
    loaded = load_backbone("MobileNetV2(alpha=0.35)", weights="random", image_size=32)
    kernel = widen(loaded, 4).model.get_layer("Conv1").get_weights()[0]

    assert kernel.shape[2] == 4
    assert np.ptp(kernel, axis=2).min() > 0


def arrays(channels, count=24):
    """Return images that only their last channel tells apart."""
    x = RNG.integers(0, 100, (count, 32, 40, channels)).astype("uint8")
    y = np.arange(count) % 2
    x[y == 1, ..., -1] += 150
    return x, y


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_arrays_and_data_sets_are_read_as_they_are(channels):
    x, y = arrays(channels)
    for source in ((x, y), tf.data.Dataset.from_tensor_slices((x, y)).batch(5)):
        data = kerastl.load_data(
            source, channels=channels, test_fraction=0, validation_fraction=0, resize="squash"
        )
        images = np.concatenate(list(data.train.images((32, 40)).as_numpy_iterator()))
        np.testing.assert_array_equal(images, x)
        views = data.train.batches(16, 8, augmentation=AUGMENTATIONS["strong"])
        batch, _ = next(iter(views))
        assert batch.shape == (8, 16, 16, channels)


def test_what_does_not_fit_is_told(tiny_backbone, tmp_path):
    x, y = arrays(4)
    for source in ((x, y), tf.data.Dataset.from_tensor_slices((x, y))):
        with pytest.raises(DataError, match="1 or 3.*or pass `channels` if the channels are not"):
            kerastl.load_data(source)
        with pytest.raises(DataError, match="width, 5"):
            kerastl.load_data(source, channels=5)
    tf.io.write_file(f"{tmp_path}/a/1.png", tf.io.encode_png(x[0]))
    tf.io.write_file(f"{tmp_path}/b/2.png", tf.io.encode_png(x[1]))
    with pytest.raises(DataError, match="not a TIFF; only TIFF files can have 4 channels"):
        kerastl.load_data(tmp_path, channels=4)
    data = kerastl.load_data((x, y), channels=4, test_fraction=0)
    model = kerastl.build_transfer_model(tiny_backbone(), 2)
    with pytest.raises(ArgumentError, match="takes images with 3 channels. Received: data with 4"):
        kerastl.fine_tune(model, data)
    with pytest.raises(ArgumentError, match="takes images with 3 channels. Received: data with 4"):
        kerastl.evaluate(model, data.train)


def test_a_network_that_is_bound_to_its_channels_is_refused():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    with pytest.raises(ArgumentError, match="cannot take images with 5 channels"):
        kerastl.build_transfer_model(keras.Model(inputs, x), 2, channels=5)


def test_a_network_of_other_channels_is_taken_as_it_is(tiny_backbone):
    six = kerastl.build_transfer_model(tiny_backbone(), 3, channels=6).get_layer("backbone")
    images = RNG.integers(0, 256, (2, 32, 32, 6)).astype("float32")

    for channels in (None, 6):
        model = kerastl.build_transfer_model(six, 2, channels=channels)
        np.testing.assert_array_equal(model.get_layer("backbone")(images), six(images))
    with pytest.raises(ArgumentError, match=r"takes images with 6 channels. Received: channels=3"):
        kerastl.build_transfer_model(six, 2, channels=3)


@pytest.mark.slow
def test_a_run_of_four_channels(tiny_backbone, tmp_path):
    keras.utils.set_random_seed(0)
    tiny_backbone().save(tmp_path / "tiny.keras")
    x, y = arrays(4, 60)
    np.savez(tmp_path / "data.npz", x=x, y=y)

    command.kerastl(
        "train", tmp_path / "data.npz", "--channels", 4, "--backbone", tmp_path / "tiny.keras",
        "--scenario", "large_different", "--epochs", 1, "--output", tmp_path / "run",
    )  # fmt: skip

    run = kerastl.load_run(tmp_path / "run")
    answers = run.predict(x).outputs
    assert (answers.argmax(1) == y).mean() > 0.9
    assert run.explain(x[:2]).heat.shape == (2, 32, 32)
    assert "widened from the mean of its RGB kernels" in (tmp_path / "run/report.html").read_text()
    card = (tmp_path / "run/MODEL_CARD.md").read_text()
    assert "It takes raw pixels of 4 channels" in card
    certificate = json.loads((tmp_path / "run/saved_model/1/parity.json").read_text())
    assert certificate["pixels"]["channels"] == 4
    assert [row["artifact"] for row in certificate["artifacts"]] == ["saved_model", "embed"]
    path = run.export(tmp_path / "more", formats=["saved_model", "litert"])
    served = tf.saved_model.load(str(path)).signatures
    assert sorted(served) == ["embed", "serving_default"]
    told = command.kerastl("evaluate", tmp_path / "run", tmp_path / "data.npz", "--json").stdout
    assert json.loads(told)["all"]["accuracy"] > 0.9
    assert run.load_data().train.channels == 4
