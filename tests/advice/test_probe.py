import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from kerastl.advice.probe import PENALTIES, SoftmaxProbe


def blobs(num_classes, per_class=30, dim=8, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, dim)) * 2
    y = np.repeat(np.arange(num_classes), per_class)
    return (centres[y] + spread * rng.normal(size=(len(y), dim))).astype("float32"), y


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_equals_scikit_learn_on_standardised_features(num_classes):
    x, y = blobs(num_classes)
    x = x * np.arange(1, 9) + 5
    probe = SoftmaxProbe().fit(x, y)
    standardised = (x - x.mean(0)) / x.std(0)
    other = LogisticRegression(C=probe.C_, max_iter=2000, tol=1e-6).fit(standardised, y)
    np.testing.assert_allclose(probe.predict_proba(x), other.predict_proba(standardised), atol=0.02)
    assert probe.coef_.shape == (num_classes, 8)
    assert probe.intercept_.shape == (num_classes,)
    assert probe.score(x, y) > 0.9


def test_the_penalty_is_the_one_of_least_log_loss_over_folds():
    x, y = blobs(3, per_class=12, dim=60, spread=12.0)
    probe = SoftmaxProbe()
    probe.fit(x, y)
    held_out = blobs(3, per_class=400, dim=60, spread=12.0)
    losses = {}
    for penalty in PENALTIES:
        deviation = x.std(0)
        other = LogisticRegression(C=penalty, max_iter=2000).fit((x - x.mean(0)) / deviation, y)
        probabilities = other.predict_proba((held_out[0] - x.mean(0)) / deviation)
        losses[penalty] = log_loss(held_out[1], probabilities)
    assert losses[probe.C_] < losses[PENALTIES[-1]]


def test_views_of_one_image_stay_in_one_fold():
    """On noise, a copy in the other fold would make a weak penalty win."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)).astype("float32"), np.arange(60) % 2
    doubled = np.concatenate([x, x]), np.concatenate([y, y])
    groups = np.tile(np.arange(60), 2)
    assert SoftmaxProbe().fit(*doubled, groups).C_ == PENALTIES[0]
    assert SoftmaxProbe().fit(*doubled).C_ > PENALTIES[0]


def test_classes_with_a_single_image():
    x, y = blobs(3, per_class=4)
    probe = SoftmaxProbe().fit(x[[0, 4, 8]], y[[0, 4, 8]])
    assert probe.predict(x[[0, 4, 8]]).tolist() == [0, 1, 2]


def test_labels_need_not_start_at_zero():
    x, y = blobs(3)
    probe = SoftmaxProbe().fit(x, y + 5)
    assert probe.classes_.tolist() == [5, 6, 7]
    assert set(probe.predict(x)) == {5, 6, 7}
    np.testing.assert_allclose(probe.predict_proba(x).sum(1), 1, atol=1e-5)
