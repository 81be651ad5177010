import numpy as np
import pytest
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from kerastl.advice.blend import BlendProbe, _stacking_weights, fit_lda
from kerastl.advice.probe import SoftmaxProbe, log_loss, standardised_rows


def blobs(num_classes, per_class, dim, spread, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, dim))
    y = np.repeat(np.arange(num_classes), per_class)
    mixed = rng.normal(size=(dim, dim)) / dim**0.5  # features that go together
    return (centres[y] + spread * rng.normal(size=(len(y), dim)) @ mixed).astype("float32"), y


@pytest.mark.parametrize(("per_class", "dim"), [(40, 12), (10, 90)])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_lda_is_that_of_scikit_learn(num_classes, per_class, dim):
    """Its covariance is estimated from the same rows, centred by class, and shrunk by OAS."""
    x, y = blobs(num_classes, per_class, dim, 1.0)
    y = np.append(y, [0] * 7)  # classes of unlike size
    x = np.concatenate([x, x[:7] + 0.1])
    coef, intercept, shrinkage = fit_lda(x, y)
    within = np.concatenate([x[y == c] - x[y == c].mean(0) for c in range(num_classes)])
    oas = OAS(assume_centered=True).fit(within)
    assert shrinkage == pytest.approx(oas.shrinkage_, rel=1e-4)

    class Whole:
        """scikit-learn estimates a covariance a class; ours is one of all."""

        def fit(self, _):
            self.covariance_ = oas.covariance_
            return self

    other = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Whole()).fit(x, y)
    scores = x @ coef.T + intercept
    expected = x @ other.coef_.T + other.intercept_
    if num_classes == 2:
        scores = scores[:, 1:] - scores[:, :1]
    else:
        scores, expected = (s - s.mean(1, keepdims=True) for s in (scores, expected))
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_images_of_a_class_that_do_not_differ_have_no_lda():
    x = np.repeat(np.eye(3, 8), 4, axis=0).astype("float32")
    y = np.repeat(np.arange(3), 4)
    assert fit_lda(x, y) is None
    probe = BlendProbe().fit(x, y)
    assert (probe.weights_, probe.shrinkage_) == ((1.0, 0.0), None)
    assert probe.score(x, y) == 1.0


def test_a_single_image_of_each_class():
    x, _ = blobs(4, 1, 6, 1.0)
    probe = BlendProbe().fit(
        np.concatenate([x, x + 0.01]), np.tile(np.arange(4), 2), [*range(4)] * 2
    )
    assert probe.score(x, np.arange(4)) == 1.0


def test_the_weights_have_the_least_loss():
    """Against a grid; a classifier that knows nothing has no say."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 3
    good = 2.0 * np.eye(3)[y] + rng.normal(size=(200, 3))
    other = 50 * (np.eye(3)[y] + rng.normal(size=(200, 3)))
    a, b = _stacking_weights(good, other, y)
    least = min(
        log_loss(i * good + j * other, y)
        for i in np.linspace(0, 3, 61)
        for j in np.linspace(0, 0.06, 61)
    )
    assert log_loss(a * good + b * other, y) <= least + 1e-3
    a, b = _stacking_weights(good, -other, y)
    assert a > 0.5
    assert b == 0


def test_images_that_are_all_told_rightly_do_not_make_it_sure_without_end():
    x, y = blobs(2, 10, 6, 0.01)
    probe = BlendProbe().fit(x, y)
    surest = probe.predict_proba(x).max()
    assert probe.score(x, y) == 1.0
    assert surest < 0.9999


@pytest.mark.parametrize(("per_class", "dim", "spread"), [(6, 80, 1.5), (60, 20, 2.0)])
def test_no_worse_than_either_on_new_images(per_class, dim, spread):
    gains = []
    for seed in range(5):
        x, y = blobs(4, per_class + 200, dim, spread, seed)
        seen = np.arange(len(y)) % (per_class + 200) < per_class
        new = x[~seen], y[~seen]
        blend, softmax = (P().fit(x[seen], y[seen]) for P in (BlendProbe, SoftmaxProbe))
        lda = fit_lda(standardised_rows(x[seen]).x, y[seen])
        assert lda is not None
        gains.append(
            log_loss(softmax.decision_function(new[0]), new[1])
            - log_loss(blend.decision_function(new[0]), new[1])
        )
    assert np.mean(gains) > 0
