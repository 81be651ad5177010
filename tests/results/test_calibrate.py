import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from kerastl.errors import DataError
from kerastl.results.calibrate import calibrate, fit_temperature, with_temperature
from kerastl.results.predictions import Predictions


def too_sure(num_images, factor=3.0, seed=0):
    """Answers whose scores are `factor` times what would be calibrated."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (num_images, 4))
    labels = (softmax(scores, axis=1).cumsum(1) < rng.random((num_images, 1))).sum(1)
    return Predictions(labels, softmax(factor * scores, axis=1), list("abcd"))


class GivenScores(ClassifierMixin, BaseEstimator):
    """What scikit-learn calibrates: its scores are its features."""

    def fit(self, x, y):
        self.classes_, self.n_features_in_ = np.unique(y), x.shape[1]
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return self.classes_[x.argmax(1)]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_scikit_learns(factor):
    predictions = too_sure(2000, factor)
    scores, labels = np.log(predictions.probabilities), predictions.labels
    other = CalibratedClassifierCV(
        FrozenEstimator(GivenScores().fit(scores, labels)), method="temperature"
    ).fit(scores, labels)
    temperature, (low, high) = fit_temperature(labels, predictions.probabilities)
    expected = 1 / float(np.ravel(other.calibrated_classifiers_[0].calibrators[0].beta_)[0])
    assert temperature == pytest.approx(expected, rel=0.01)
    assert low < factor < high
    assert high / low < 1.2


def test_it_makes_the_probabilities_better_and_no_answer_other():
    validation, test = too_sure(500), too_sure(1000, seed=1)
    found = calibrate(validation, test)
    for name in ("validation", "test"):
        for before, after in (found[name]["log_loss"], found[name]["ece"]):
            assert after < before
    after = with_temperature(test, found["temperature"])
    assert (after.answers == test.answers).all()
    assert after.probabilities.sum(1) == pytest.approx(1)
    assert found["num_images"] == 500


def test_a_temperature_of_one_changes_nothing():
    predictions = too_sure(20)
    assert with_temperature(predictions, 1.0).probabilities == pytest.approx(
        predictions.probabilities
    )


def test_answers_that_are_all_right_give_a_finite_temperature():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    temperature, (low, high) = fit_temperature(np.array([0, 1]), probabilities)
    assert 0.2 < temperature < 1
    assert low < temperature < high
    certain = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    assert np.isfinite(fit_temperature(np.array([0, 0]), certain)[0])


def test_no_validation_images():
    nothing = Predictions(np.zeros(0, int), np.zeros((0, 2)), ["a", "b"])
    with pytest.raises(DataError, match="Received none.*validation_fraction"):
        calibrate(nothing)
