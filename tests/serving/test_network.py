import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.serving.network import served_network, traced
from kerastl.serving.parity import apply_temperature

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(inputs, keras.layers.Conv2D(5, 3)(inputs))
    model = build_transfer_model(backbone, 4, image_size=8)
    rng = np.random.default_rng(1)
    model.layers[-1].set_weights([rng.normal(size=w.shape) / 50 for w in model.layers[-1].weights])
    return model


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_the_temperature_is_in_the_head_and_the_model_stays_as_it_is(model, temperature):
    before = model.predict_on_batch(IMAGES)
    embedding, probabilities = served_network(model, temperature).predict_on_batch(IMAGES)
    assert embedding.shape == (3, 5)
    assert before.std(0).max() > 1e-4
    np.testing.assert_allclose(probabilities, apply_temperature(before, temperature), atol=1e-5)
    np.testing.assert_array_equal(model.predict_on_batch(IMAGES), before)


def test_dropout_is_off_in_what_is_traced():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dropout(0.9)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    run = traced(served_network(model), (8, 8))
    np.testing.assert_array_equal(run(IMAGES)[0], IMAGES.reshape(3, -1))


GIVEN = keras.Sequential(
    [keras.layers.Dense(16, "gelu"), keras.layers.Dropout(0.2), keras.layers.LayerNormalization()]
)


def test_a_model_with_another_end_is_refused():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ArgumentError, match=r"end in a dense layer with a softmax.*Dense"):
        served_network(model)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(
    ("head", "dropout"),
    [("linear", 0.0), ("linear", 0.5), ("mlp", 0.3), ("mlp:16,8", 0.0), (GIVEN, 0.3)],
)
def test_every_head_is_served_without_its_dropout(tiny_backbone, head, dropout, temperature):
    model = build_transfer_model(tiny_backbone(), 3, head=head, dropout=dropout)
    rng = np.random.default_rng(0)
    layer = model.get_layer("head")
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype("float32")
    network = served_network(model, temperature)
    embedding, probabilities = network.predict(images, verbose=0)
    expected = apply_temperature(model.predict(images, verbose=0), temperature)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert embedding.shape == (4, 24)
    kinds = [type(one).__name__ for one in network.layers]
    assert "Dropout" not in kinds
    assert head is GIVEN or "Sequential" not in kinds
