import keras
import numpy as np
import pytest
from keras import layers

from kerastl.errors import ArgumentError
from kerastl.frozen.layers import find_layer, network_to, unknown_layer


def tower(name, *, scale):
    inputs = keras.Input((8,))
    x = layers.Dense(6, "relu", name="hidden", kernel_initializer="ones")(inputs)
    x = layers.Rescaling(scale, name=f"scale_{name}")(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(x), name=name)


@pytest.fixture
def nested():
    """Two models in a model in a model, with names that they share and names that they do not."""
    inputs = keras.Input((8,))
    both = layers.Concatenate(name="both")(
        [tower("left", scale=2.0)(inputs), tower("right", scale=3.0)(inputs)]
    )
    middle = keras.Model(inputs, both, name="middle")
    images = keras.Input((8,))
    x = layers.Rescaling(0.5, name="half")(images)
    return keras.Model(images, layers.Dense(2, name="last")(middle(x)))


def test_names_at_every_depth_give_what_is_computed_there(nested):
    x = np.random.default_rng(0).uniform(0, 1, (4, 8)).astype("float32")
    sums = np.repeat(x.sum(1, keepdims=True) / 2, 6, axis=1)
    for name, expected in {
        "half": x / 2,
        "scale_left": 2 * sums,
        "middle/right/scale_right": 3 * sums,
        "right/hidden": sums,
        "both": nested.get_layer("middle")(x / 2),
        "middle": nested.get_layer("middle")(x / 2),
        "last": nested(x),
    }.items():
        network = network_to(nested, find_layer(nested, name))
        np.testing.assert_allclose(network(x), expected, rtol=1e-5, err_msg=name)


def test_a_name_that_several_have_wants_a_path(nested):
    with pytest.raises(ArgumentError, match="'middle/left/hidden', 'middle/right/hidden'"):
        find_layer(nested, "hidden")


def test_an_unknown_name_lists_near_ones(nested):
    assert find_layer(nested, "scale_lefd") is None
    text = str(unknown_layer("scale_lefd", "my model", [nested]))
    assert "Received: at='scale_lefd'. Did you mean 'scale_left'" in text
    assert "layer of 'my model'" in text
    assert "The last layers are" in text


def test_a_layer_that_is_used_twice_is_taken_the_last_time():
    double = layers.Rescaling(2.0, name="double")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, double(double(inputs)))
    network = network_to(model, find_layer(model, "double"))
    np.testing.assert_array_equal(network(np.ones((1, 3))), np.full((1, 3), 4.0))


def test_a_layer_of_two_outputs_is_refused():
    inputs = keras.Input((4, 3))
    outputs, state = layers.GRU(2, return_state=True, name="gru")(inputs)
    model = keras.Model(inputs, layers.Add()([outputs, state]))
    with pytest.raises(
        ArgumentError, match="must have one output. Received: at='gru', which has 2"
    ):
        network_to(model, find_layer(model, "gru"))


def test_a_sequential_model_has_layers_too():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="a"), layers.Dense(4)])
    assert network_to(model, find_layer(model, "a")).output_shape == (None, 3)
