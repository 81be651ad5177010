from statistics import NormalDist

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from kerastl.errors import ArgumentError, DataError
from kerastl.results.evaluate import evaluate, expected_calibration_error, measures


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 60))
def test_measures_equal_scikit_learn(seed, num_classes, num_images):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    probabilities = rng.dirichlet(np.ones(num_classes), num_images)
    got = measures(labels, probabilities)
    answers = probabilities.argmax(1)
    assert got["accuracy"] == pytest.approx(accuracy_score(labels, answers))
    expected = f1_score(labels, answers, average="macro", zero_division=0.0)
    assert got["macro_f1"] == pytest.approx(expected)
    expected = log_loss(labels, probabilities, labels=list(range(num_classes)))
    assert got["log_loss"] == pytest.approx(expected)
    low, high = got["accuracy_interval"]
    assert 0 <= low <= got["accuracy"] <= high <= 1


def test_the_interval_is_wilsons():
    labels = np.zeros(100, int)
    probabilities = np.repeat([[0.9, 0.1], [0.2, 0.8]], [90, 10], axis=0)
    low, high = measures(labels, probabilities)["accuracy_interval"]
    z, p, n = NormalDist().inv_cdf(0.975), 0.9, 100
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    assert (low, high) == pytest.approx((centre - half, centre + half))


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
    # Bin of 0.9: half right, gap 0.4, two images; 0.6: wrong, gap 0.6; 1.0: right, gap 0.
    labels = np.array([0, 1, 0, 1])
    assert expected_calibration_error(labels, probabilities) == pytest.approx((0.8 + 0.6) / 4)


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((2, 2, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    return model


def test_arrays_and_datasets_agree(model):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(50, 2, 2, 3)).astype("float32"), rng.integers(0, 3, 50)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    of_arrays, of_dataset = evaluate(model, (images, labels)), evaluate(model, dataset)
    assert of_arrays.pop("accuracy_interval") == of_dataset.pop("accuracy_interval")
    assert of_arrays == pytest.approx(of_dataset)
    assert of_arrays["num_images"] == 50


@pytest.mark.parametrize("nothing", [None, 3])
def test_what_cannot_be_evaluated(model, nothing):
    with pytest.raises(ArgumentError, match="must be a split"):
        evaluate(model, nothing)


def test_no_images(model):
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate(model, (np.zeros((0, 2, 2, 3)), np.zeros(0)))
