import keras
import numpy as np
import pytest

from kerastl.model.build import build_transfer_model
from kerastl.training.callbacks import least_worth_keeping
from kerastl.training.targets import (
    keep_criterion,
    measure_head,
    standard_outputs,
    standardise_targets,
)
from tests.training.small import small_backbone

VALUES = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0], [6.0, 10.0]], "float32")


def test_an_accuracy_has_to_rise_by_a_standard_error():
    criterion = keep_criterion("classification", None, None, {"accuracy": 0.7}, 100)
    assert criterion.least == least_worth_keeping(0.7, 100)
    assert criterion.score({"val_accuracy": 0.8, "val_loss": 3.0}) == 0.8


def test_a_squared_error_has_to_fall_by_a_standard_error():
    class Constant:
        def predict_on_batch(self, inputs):
            return np.zeros((len(inputs), 1))

    batches = [(np.zeros((2, 3)), np.array([[1.0], [3.0]]))]
    criterion = keep_criterion("regression", Constant(), batches, {"loss": 5.0}, 2)
    assert criterion.least == pytest.approx(-5 + 4 / 2**0.5)  # errors 1 and 9
    assert criterion.score({"val_loss": 2.0}) == -2.0


def test_a_regression_trains_in_standard_units_and_comes_back():
    keras.utils.set_random_seed(0)
    model = build_transfer_model(small_backbone(), 2, task="regression")
    head = model.get_layer("head")
    head.set_weights([np.ones_like(head.get_weights()[0]), np.array([3.0, 10.0])])
    x = np.zeros((1, head.get_weights()[0].shape[0]), "float32")
    with standard_outputs("regression", model, VALUES, begun=False):
        # Mean 3 and 10; the second target does not vary, and is divided by 1.
        np.testing.assert_allclose(head(x), [[0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(head(x), [[3.0, 10.0]], rtol=1e-6)
    with standard_outputs("classification", model, VALUES, begun=False):
        np.testing.assert_allclose(head(x), [[3.0, 10.0]], rtol=1e-6)
    assert standardise_targets("classification", "batches", VALUES) == "batches"


def test_measures_of_a_head_are_named_as_in_the_logs():
    outputs = np.array([[0.5, 0.5], [0.1, 0.9]])
    measures = measure_head("classification", outputs, np.array([1, 1]), np.array([0, 1]))
    assert measures == pytest.approx({"loss": -np.log([0.5, 0.9]).mean(), "accuracy": 0.5})
    errors = measure_head("regression", VALUES + 1, VALUES, VALUES)
    assert errors["loss"] == pytest.approx((1 / 5 + 1) / 2)  # variances 5 and, for 0, 1
