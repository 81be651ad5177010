import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binom
from sklearn import metrics
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import check_estimator

from kerastl.advice.blend import BlendProbe
from kerastl.advice.probe import (
    ABSENT,
    PENALTIES,
    LinearProbe,
    SoftmaxProbe,
    fit_out_of_fold_temperature,
    head_weights,
)
from kerastl.advice.ridge import stratified_folds
from kerastl.advice.svm import LinearSVM
from kerastl.errors import ArgumentError

PROBES = [SoftmaxProbe, BlendProbe, LinearSVM, LinearProbe]


def blobs(num_classes, per_class=30, dim=8, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, dim)) * 2
    y = np.repeat(np.arange(num_classes), per_class)
    return (centres[y] + spread * rng.normal(size=(len(y), dim))).astype("float32"), y


def in_deviations(x):
    """Standardise, with deviations of at least the median one."""
    return (x - x.mean(0)) / np.maximum(x.std(0), np.median(x.std(0)))


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_equals_scikit_learn_on_standardised_features(num_classes):
    x, y = blobs(num_classes)
    x = x * np.arange(1, 9) + 5
    probe = SoftmaxProbe().fit(x, y)
    standardised = in_deviations(x)
    other = LogisticRegression(C=probe.C_, max_iter=2000, tol=1e-6).fit(standardised, y)
    np.testing.assert_allclose(probe.predict_proba(x), other.predict_proba(standardised), atol=0.02)
    assert probe.coef_.shape == (num_classes, 8)
    assert probe.intercept_.shape == (num_classes,)
    assert probe.score(x, y) > 0.9


def test_the_penalty_of_least_log_loss():
    """Where classes overlap, against every penalty on the same folds."""
    x, y = blobs(3, per_class=40, dim=60, spread=12.0)
    standardised = ((x - x.mean(0)) / x.std(0)).astype("float32")
    folds = stratified_folds(y, 3, 0)
    losses = []
    for penalty in PENALTIES:
        other = LogisticRegression(C=penalty, max_iter=1000)
        losses.append(
            np.mean(
                [
                    metrics.log_loss(
                        y[folds == fold],
                        other.fit(standardised[folds != fold], y[folds != fold]).predict_proba(
                            standardised[folds == fold]
                        ),
                    )
                    for fold in range(3)
                ]
            )
        )
    assert SoftmaxProbe().fit(x, y).C_ == PENALTIES[int(np.argmin(losses))]
    assert 0 < np.argmin(losses) < len(PENALTIES) - 1


def test_a_feature_that_hardly_varies_is_not_blown_up():
    x, y = blobs(2)
    x[:, 0] = np.where(np.arange(60) == 7, 1e-3, 0)
    assert np.abs(SoftmaxProbe().fit(x, y).coef_[:, 0]).max() < 0.1


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


def test_the_penalty_is_chosen_on_a_part_of_many_images(monkeypatch):
    x, y = blobs(3, per_class=100)
    monkeypatch.setattr("kerastl.advice.probe.MAX_IMAGES_TO_CHOOSE", 60)
    sizes = []
    import kerastl.advice.probe as module

    fit = module.fit_softmax
    monkeypatch.setattr(
        module, "fit_softmax", lambda x, *rest: sizes.append(len(x)) or fit(x, *rest)
    )
    assert SoftmaxProbe().fit(x, y).score(x, y) > 0.9
    assert sizes[-1] == 300
    assert max(sizes[:-1]) == 40


def test_a_class_with_a_single_image_does_not_stop_the_choice():
    """On noise the strongest wins; with nothing to choose by it would be the middle one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(61, 40)).astype("float32"), np.append(np.arange(60) % 2, 2)
    probe = SoftmaxProbe().fit(x, y)
    assert probe.C_ == PENALTIES[0]
    assert probe.coef_.shape == (3, 40)


def test_a_penalty_means_the_same_with_several_views():
    """Two equal views at C weigh as one at 2 C does: the same fit as of one view, twice as sure."""
    x, y = blobs(3, per_class=40, dim=60, spread=8.0)
    probe = SoftmaxProbe().fit(np.tile(x, (2, 1)), np.tile(y, 2), np.tile(np.arange(120), 2))
    standardised = (x - x.mean(0)) / x.std(0)
    other = LogisticRegression(C=2 * probe.C_, max_iter=2000, tol=1e-6).fit(standardised, y)
    np.testing.assert_allclose(probe.predict_proba(x), other.predict_proba(standardised), atol=0.03)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_svm_equals_scikit_learn_on_standardised_features(num_classes):
    x, y = blobs(num_classes, spread=3.0)
    x = x * np.arange(1, 9) + 5
    svm = LinearSVM().fit(x, y)
    standardised = in_deviations(x)
    other = LinearSVC(C=svm.C_, tol=1e-6, max_iter=100_000).fit(standardised, y)
    expected = other.decision_function(standardised)
    found = svm.decision_function(x)
    assert svm.coef_.shape == (num_classes, 8)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_svm_is_no_weaker_than_it_helps():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)), np.arange(60) % 2
    doubled = np.concatenate([x, x]), np.concatenate([y, y]), np.tile(np.arange(60), 2)
    assert LinearSVM().fit(*doubled).C_ == pytest.approx(0.1 / 40)


@pytest.mark.parametrize("probe", PROBES)
class TestEveryProbe:
    @pytest.mark.filterwarnings("ignore")
    def test_keeps_the_estimator_contract(self, probe):
        found = check_estimator(probe(), on_skip=None)
        assert {check["status"] for check in found} <= {"passed", "skipped"}
        x, y = blobs(2, spread=3.0)
        assert cross_val_score(probe(), x, y, scoring="roc_auc").mean() > 0.9
        x, y = blobs(3)
        assert clone(probe(num_folds=4, seed=2)).get_params() == {"num_folds": 4, "seed": 2}
        fitted = probe().fit(x, y)
        assert fitted.n_features_in_ == 8
        assert cross_val_score(probe(), x, y, cv=3).min() > 0.9
        np.testing.assert_array_equal(
            fitted.decision_function(x), probe().fit(x, y).decision_function(x)
        )

    def test_head_gives_the_scores(self, probe):
        x, y = blobs(3)
        labels = np.array([0, 2, 5])[y]
        fitted = probe().fit(x, labels)
        kernel, bias = head_weights(fitted, 7)
        assert (kernel.shape, kernel.dtype, bias.dtype) == ((8, 7), np.float32, np.float32)
        scores = x @ kernel + bias
        np.testing.assert_allclose(scores[:, [0, 2, 5]], fitted.decision_function(x), atol=1e-4)
        assert (scores[:, [1, 3, 4, 6]] == ABSENT).all()
        halved = x @ head_weights(fitted, 7, temperature=2.0)[0]
        np.testing.assert_allclose(halved, x @ kernel / 2, atol=1e-4)
        with pytest.raises(ArgumentError, match=r"ints from 0 to 4 .* \[0, 2, 5\]"):
            head_weights(fitted, 5)

    def test_answers_with_the_labels_it_was_given(self, probe):
        x, y = blobs(2)
        names = np.array(["cat", "dog"])[y]
        fitted = probe().fit(x, names)
        assert fitted.coef_.shape == (2, 8)
        assert fitted.score(x, names) > 0.9
        with pytest.raises(ArgumentError, match="Number the classes from 0"):
            head_weights(fitted, 2)

    @pytest.mark.parametrize("dim", [1, 5])
    def test_two_images(self, probe, dim):
        x = np.array([[0.0] * dim, [1.0] * dim])
        assert probe().fit(x, [4, 9]).predict(x).tolist() == [4, 9]

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("num_rows", [9, 60])
    def test_constant_features_carry_nothing(self, probe, num_rows):
        x, y = blobs(3, per_class=num_rows // 3, dim=12)
        x[:, 3:6] = [0, 1, 1e4]
        fitted = probe().fit(x, y)
        assert fitted.score(x, y) > 0.9
        np.testing.assert_allclose(fitted.coef_[:, 3:6], 0, atol=1e-6)
        nothing = probe().fit(np.ones((num_rows, 4)), y)
        assert np.isfinite(nothing.decision_function(np.ones((1, 4)))).all()

    def test_noise_is_not_learnt_across_images(self, probe):
        rng = np.random.default_rng(0)
        fitted = probe().fit(rng.normal(size=(100, 200)), np.arange(100) % 2)
        low, high = binom.interval(0.999, 1000, 0.5)
        assert low <= 1000 * fitted.score(rng.normal(size=(1000, 200)), np.arange(1000) % 2) <= high

    def test_says_what_it_cannot_fit(self, probe):
        x, y = blobs(2)
        with pytest.raises(ArgumentError, match=r"Received shape: \(60, 2, 4\)\. Pool feature"):
            probe().fit(x.reshape(60, 2, 4), y)
        with pytest.raises(ArgumentError, match=r"Received shape: \(59,\) for 60 examples"):
            probe().fit(x, y, np.arange(59))
        with pytest.raises(ArgumentError, match=r"labels of one class: \[0\]"):
            probe().fit(x, 0 * y)


@pytest.mark.parametrize("dim", [8, 200])
def test_ridge_scores_images_that_it_did_not_see(dim):
    x, y = blobs(3, dim=dim, spread=5.0)
    probe = LinearProbe().fit(x, y)
    assert probe.out_of_fold_.shape == (90, 3)
    right = probe.classes_[probe.out_of_fold_.argmax(1)] == y
    np.testing.assert_array_equal(probe.is_right_, right)
    assert probe.cv_accuracy_ == right.mean()
    refits = cross_val_score(LinearProbe(), x, y, cv=5).mean()
    assert probe.cv_accuracy_ == pytest.approx(refits, abs=0.06)


@pytest.mark.parametrize("dim", [8, 200])
def test_ridge_on_noise_gives_chance_with_views_in_one_fold(dim):
    rng = np.random.default_rng(0)
    y, groups = np.tile(np.arange(100) % 2, 2), np.tile(np.arange(100), 2)
    right = 0
    for seed in range(10):
        x = np.tile(rng.normal(size=(100, dim)), (2, 1))
        probe = LinearProbe(seed=seed).fit(x, y, groups)
        assert probe.is_right_.shape == (100,)
        right += probe.is_right_.sum()
    low, high = binom.interval(0.999, 1000, 0.5)
    assert low <= right <= high


@pytest.mark.parametrize("dim", [8, 200])
def test_ridge_penalty_with_views_is_near_that_of_one_view(dim):
    """Equal views double every eigenvalue, so an equal fit has twice the penalty."""
    x, y = blobs(2, per_class=50, dim=dim, spread=8.0)
    one = LinearProbe().fit(x, y)
    two = LinearProbe().fit(np.tile(x, (2, 1)), np.tile(y, 2), np.tile(np.arange(100), 2))
    assert 0.1 < two.penalty_ / (2 * one.penalty_) < 10
    assert two.cv_accuracy_ == pytest.approx(one.cv_accuracy_, abs=0.05)


def test_ridge_folds_are_equal_on_other_features():
    x, y = blobs(3, spread=5.0)
    one, other = LinearProbe().fit(x, y), LinearProbe().fit(2 * x + 1, y)
    np.testing.assert_allclose(one.out_of_fold_, other.out_of_fold_, atol=1e-5)


def test_ridge_temperature_calibrates():
    x, y = blobs(3, per_class=100, spread=4.0)
    probe = LinearProbe().fit(x[::2], y[::2])

    def loss(probabilities):
        return -np.log(probabilities[np.arange(150), y[1::2]]).mean()

    raw = log_softmax(probe.decision_function(x[1::2]), axis=1)
    calibrated = loss(probe.predict_proba(x[1::2]))
    assert calibrated < 0.9 * loss(np.exp(raw))
    assert calibrated < 1.05 * loss(SoftmaxProbe().fit(x[::2], y[::2]).predict_proba(x[1::2]))
    np.testing.assert_allclose(probe.predict_proba(x).sum(1), 1, atol=1e-6)


def test_temperature_is_found():
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=(20_000, 4))
    columns = (scores / 2.5 + rng.gumbel(size=scores.shape)).argmax(1)
    assert fit_out_of_fold_temperature(scores, columns) == pytest.approx(2.5, rel=0.03)
