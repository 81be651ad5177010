import keras
import numpy as np
import pytest

from kerastl.backbones.alexnet import alexnet
from kerastl.backbones.preprocessing import preprocessing_of
from kerastl.backbones.stages import find_stages, split
from kerastl.backbones.weights import load_backbone
from kerastl.errors import ArgumentError, WeightsError
from kerastl.model.build import build_transfer_model


def test_the_parameters_are_those_of_the_paper():
    with keras.StatelessScope(initialize_variables=False):
        whole = alexnet()
    counts = {layer.name: layer.count_params() for layer in whole.layers if layer.weights}
    assert counts == {
        "conv1": 23_296,
        "conv2": 307_392,
        "conv3": 663_936,
        "conv4": 884_992,
        "conv5": 590_080,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "predictions": 4_097_000,
    }
    assert sum(counts.values()) == 61_100_840
    assert whole.output.shape == (None, 1000)
    assert whole.get_layer("conv1").output.shape == (None, 55, 55, 64)


def test_it_is_a_backbone_of_five_poolings_and_convolutions():
    loaded = load_backbone("AlexNet", weights="random")
    assert (loaded.name, loaded.image_size) == ("AlexNet", (224, 224))
    assert loaded.preprocessing == preprocessing_of("torch")
    assert loaded.model.output.shape == (None, 6, 6, 256)
    assert loaded.model.count_params() == 2_469_696
    names = [stage.name for stage in find_stages(loaded.model)]
    assert names == ["pool1", "pool2", "conv3", "pool5"]
    network = load_backbone("AlexNet", weights="random", image_size=(63, 95)).model
    chain = find_stages(network)
    pixels = np.random.default_rng(0).normal(size=(2, 63, 95, 3)).astype("float32")
    for stage in chain:
        below, above = split(network, stage)
        np.testing.assert_array_equal(above(below(pixels)), network(pixels))


def test_weights_are_random_or_of_a_file(tmp_path):
    with pytest.raises(WeightsError, match="no ImageNet weights for AlexNet.*weights='random'"):
        load_backbone("AlexNet")
    with pytest.raises(ArgumentError, match="takes no argument"):
        load_backbone("AlexNet(alpha=1)", weights="random")
    with pytest.raises(ArgumentError, match="at least 63"):
        load_backbone("AlexNet", weights="random", image_size=62)
    with pytest.raises(ArgumentError, match="at least 63 pixels. Received: input_shape"):
        alexnet(False, input_shape=(62, 64, 3))
    keras.utils.set_random_seed(1)
    model = alexnet(False, input_shape=(64, 64, 3))
    model.save_weights(tmp_path / "mine.weights.h5")
    loaded = load_backbone("AlexNet", weights=tmp_path / "mine.weights.h5", image_size=64)
    assert all(
        np.array_equal(a, b) for a, b in zip(loaded.model.weights, model.weights, strict=True)
    )


def test_training_moves_the_open_stages_alone():
    keras.utils.set_random_seed(0)
    model = build_transfer_model("AlexNet", 3, weights="random", image_size=63, freeze_depth=2)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    network = model.get_layer("backbone")
    before = {layer.name: layer.get_weights() for layer in network.layers if layer.weights}
    images = np.zeros((3, 63, 63, 3), "float32")
    images[range(3), ..., range(3)] = 255  # red, green and blue
    losses = model.fit(images, np.arange(3), epochs=10, verbose=0).history["loss"]
    moved = {
        name
        for name, weights in before.items()
        if any(
            not np.array_equal(one, other)
            for one, other in zip(weights, network.get_layer(name).get_weights(), strict=True)
        )
    }
    assert set(before) == {"conv1", "conv2", "conv3", "conv4", "conv5"}
    assert moved == {"conv3", "conv4", "conv5"}
    assert losses[-1] < 0.5 * losses[0]
