import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerastl.model.build import build_transfer_model
from kerastl.serving.artifacts import open_artifact
from kerastl.serving.formats import BY_NAME
from kerastl.serving.network import served_network
from kerastl.serving.writers import write_format

NAMES = ["a", "b", "c"]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model():
    """Convolutions in groups, GELU, swish, normalisation of three kinds, dropout."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Normalization()(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same")(x)
    x = keras.layers.Conv2D(8, 7, padding="same", groups=8, activation="gelu")(x)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Activation("swish")(x))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, groups=4)(x))
    model = build_transfer_model(keras.Model(inputs, x), 3, class_names=NAMES)
    rng = np.random.default_rng(0)
    model.layers[-1].set_weights([rng.normal(size=w.shape) for w in model.layers[-1].weights])
    return model


@pytest.mark.parametrize("name", ["litert", "onnx", "openvino"])
def test_layers_that_converters_stumble_over(model, tmp_path, name):
    missing = [one for one in BY_NAME[name].packages if importlib.util.find_spec(one) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    network = served_network(model)
    write_format(BY_NAME[name], network, tmp_path, class_names=NAMES, representative=IMAGES)
    expected = model.predict_on_batch(IMAGES)
    assert expected.std(0).max() > 1e-4
    np.testing.assert_allclose(open_artifact(tmp_path, name)(IMAGES), expected, atol=1e-6)
    assert not tf.config.functions_run_eagerly()
