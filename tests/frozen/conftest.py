"""Small networks with every trap in them, and stores of their own."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from keras import layers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the tests' activations out of the user's own store."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("KERASTL_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3)).astype("uint8")


def small_backbone(seed=0, name=None):
    """Three levels with shortcuts, depthwise convolutions, statistics that are not 0 and 1,
    and dropout that is active when a backbone is frozen."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((32, 32, 3), name=name)
    for level in range(4):
        x = layers.Conv2D(8 * 2**level, 3, 2, "same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        y = layers.DepthwiseConv2D(3, padding="same")(layers.ReLU()(x))
        y = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(layers.Activation("swish")(y))
        x = layers.Add()([x, y])
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 5, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(1, 90, layer.moving_variance.shape))
    return model


@pytest.fixture
def build_backbone():
    return small_backbone


@pytest.fixture
def backbone():
    return small_backbone()


@pytest.fixture
def model(backbone):
    from kerastl.model.build import build_transfer_model

    return build_transfer_model(backbone, 3)
