import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from kerastl.advice.scores import (
    fit_learning_curve,
    leave_one_out_leep,
    log_evidence,
    one_standard_error_stage,
    shrinkage_h_score,
)
from kerastl.errors import ArgumentError


def blobs(n, dim, num_classes, distance, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    centres = rng.normal(size=(num_classes, dim)) * distance
    return centres[labels] + rng.normal(size=(n, dim)), labels


def noise_theta(n, num_source, confidence, rng):
    weights = rng.gamma(confidence, size=(n, num_source)) + 1e-12
    return weights / weights.sum(1, keepdims=True)


def leep_image_by_image(theta, labels, prior):
    """The definition: for each image, the counts over all the others."""
    frequency = {y: np.mean(labels == y) for y in set(labels.tolist())}
    logs = []
    for i, label in enumerate(labels):
        others = np.arange(len(labels)) != i
        same = others & (labels == label)
        given = theta[same].sum(0) + prior * frequency[label]
        logs.append(np.log(theta[i] @ (given / (theta[others].sum(0) + prior))))
    return np.mean(logs)


@pytest.mark.parametrize("prior", [0.1, 1.0, 5.0])
def test_leep_leaves_each_image_out(prior):
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 3, 3, 7, 7, 7, 7, 5])
    theta = noise_theta(10, 6, 0.3, rng)
    skill = leave_one_out_leep(theta, labels, prior_images=prior)
    assert skill.log_probability == pytest.approx(leep_image_by_image(theta, labels, prior))


def test_leep_reads_thousands_of_images_in_parts(monkeypatch):
    theta = noise_theta(50, 6, 0.3, np.random.default_rng(0))
    whole = leave_one_out_leep(theta, np.arange(50) % 3)
    monkeypatch.setattr("kerastl.advice.scores._ROWS_AT_A_TIME", 7)
    assert leave_one_out_leep(theta, np.arange(50) % 3) == whole


@pytest.mark.parametrize(
    ("n", "num_classes", "confidence"),
    list(itertools.product([50, 250], [2, 10], [0.002, 0.02, 0.2])),
)
def test_noise_explains_nothing(n, num_classes, confidence):
    """As published, LEEP takes up to 0.94 of the entropy of these for explained."""
    rng = np.random.default_rng(0)
    draws = [noise_theta(n, 1000, confidence, rng) for _ in range(5)]
    explained = [leave_one_out_leep(t, np.arange(n) % num_classes).explained for t in draws]
    assert -0.3 < np.mean(explained) < 0.01
    assert max(explained) < 0.1


def test_source_classes_that_are_the_labels_explain_all():
    labels = np.arange(200) % 4
    skill = leave_one_out_leep(np.eye(1000)[labels * 7], labels)
    assert skill.explained > 0.99


def test_one_class_has_nothing_to_explain():
    assert leave_one_out_leep(np.ones((5, 2)) / 2, np.zeros(5, int)).explained == 0


def test_leep_wants_a_row_for_each_label():
    with pytest.raises(ArgumentError, match=r"a row for each of at least 2 labels.*4 labels"):
        leave_one_out_leep(np.ones((3, 2)), np.arange(4))


@pytest.mark.parametrize(("n", "dim"), [(30, 200), (200, 30), (40, 40)])
def test_h_score_equals_the_dense_formula(n, dim):
    x, labels = blobs(n, dim, 4, 0.3)
    fitted = LedoitWolf().fit(x)
    means = np.stack([x[labels == c].mean(0) for c in range(4)])[labels]
    between = np.cov(means.T, bias=True)
    dense = np.trace(np.linalg.solve(fitted.covariance_, (1 - fitted.shrinkage_) * between))
    assert shrinkage_h_score(x, labels) == pytest.approx(dense, rel=1e-9)


def test_h_score_does_not_see_classes_in_noise_of_many_dimensions():
    """Without shrinkage it would be 3 for four classes, whatever the features."""
    x, labels = blobs(60, 400, 4, 0.0)
    assert shrinkage_h_score(x, labels) < 1
    far, _ = blobs(60, 400, 4, 2.0)
    assert shrinkage_h_score(far, labels) > 2


def test_h_score_of_features_without_spread():
    assert shrinkage_h_score(np.ones((6, 3)), np.arange(6) % 2) == 0
    assert np.isfinite(shrinkage_h_score(np.ones((6, 3)) * np.arange(6)[:, None], np.arange(6) % 2))


def dense_evidence(x, labels):
    """Log density of each column of the one-hot labels, over variances of noise and weights."""

    def negative(logs, y):
        covariance = np.exp(logs[0]) * np.eye(len(x)) + np.exp(logs[1]) * (x @ x.T)
        return -multivariate_normal.logpdf(y, np.zeros(len(x)), covariance)

    values = []
    for y in np.eye(labels.max() + 1)[labels].T:
        starts = [np.log([0.1, ratio / x.shape[1]]) for ratio in (1e-4, 1e-2, 1)]
        found = [minimize(negative, s, (y,), method="Nelder-Mead", tol=1e-7) for s in starts]
        values.append(-min(result.fun for result in found) / len(x))
    return np.mean(values)


@pytest.mark.parametrize(("n", "dim", "distance"), [(20, 80, 0.5), (60, 10, 0.5), (20, 80, 0.0)])
def test_evidence_equals_the_dense_gaussian(n, dim, distance):
    x, labels = blobs(n, dim, 3, distance)
    assert log_evidence(x, labels) == pytest.approx(dense_evidence(x, labels), abs=1e-5)


def test_evidence_of_many_dimensions_is_no_better_for_being_many():
    """Without the term that the authors' code lacks, noise like this has 50 and more."""
    x, labels = blobs(60, 800, 2, 0.0)
    near, _ = blobs(60, 800, 2, 0.3)
    assert log_evidence(x, labels) < 0
    assert log_evidence(x, labels) < log_evidence(near, labels)


def test_evidence_does_not_depend_on_the_scale_of_the_features():
    x, labels = blobs(40, 12, 3, 1.0)
    assert log_evidence(1000 * x, labels) == pytest.approx(log_evidence(x, labels), abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0.1, 2.0), (0.0, 1.5), (0.25, 0.0)])
def test_the_curve_is_found_again(a, b):
    sizes = [25, 50, 100, 200]
    curve = fit_learning_curve(sizes, [np.full(5, a + b * m**-0.5) for m in sizes])
    assert (curve.a, curve.b) == pytest.approx((a, b), abs=1e-9)
    assert curve.num_images == 200
    assert curve.error(200) == pytest.approx(a + b * 200**-0.5)
    assert curve.doubled.num_images == 400
    assert curve.doubled.error == pytest.approx(curve.error(400))
    assert curve.quadrupled.error == pytest.approx(a + b / np.sqrt(800))
    assert curve.quadrupled.high - curve.quadrupled.low < 1e-9


def test_neither_part_of_the_curve_is_negative():
    steep = fit_learning_curve([10, 1000], [np.array([0.9]), np.array([0.01])])
    assert steep.a == 0
    rising = fit_learning_curve([10, 1000], [np.array([0.1]), np.array([0.3])])
    assert rising.b == 0
    # Weighed by size: the mean is that of the larger set almost.
    assert rising.a == pytest.approx((10 * 0.1 + 1000 * 0.3) / 1010)


def test_the_interval_holds_what_comes():
    rng = np.random.default_rng(0)
    sizes = np.array([50, 100, 200, 400])
    hits = 0
    for seed in range(40):
        errors = [0.1 + 2 * m**-0.5 + rng.normal(size=8) / np.sqrt(10 * m) for m in sizes]
        curve = fit_learning_curve(sizes.tolist(), errors, seed=seed)
        assert curve.doubled.low <= curve.doubled.error <= curve.doubled.high
        hits += curve.doubled.low <= 0.1 + 2 * 800**-0.5 <= curve.doubled.high
    assert hits >= 30  # 36 are meant


def test_draws_may_be_of_any_number():
    curve = fit_learning_curve([50, 100], [np.array([0.4, 0.5, 0.45]), np.array([0.3])])
    assert 0 < curve.quadrupled.error < 0.3


@pytest.mark.parametrize(
    ("sizes", "errors"), [([50], [[0.1]]), ([50, 50], [[0.1], [0.1]]), ([50, 60], [[0.1], []])]
)
def test_a_curve_needs_two_sizes_with_draws(sizes, errors):
    with pytest.raises(ArgumentError, match="at least 2 different numbers of images"):
        fit_learning_curve(sizes, [np.array(e) for e in errors])


def rows(*texts):
    return np.array([[mark == "1" for mark in text] for text in texts])


@pytest.mark.parametrize(
    ("correct", "stage", "best"),
    [
        # The last is best.
        (rows("0000011111", "0011111111", "1111111111"), 2, 2),
        # A deficit of 0.2, an error of 0.13.
        (rows("0000011111", "1111111111", "1111111100"), 1, 1),
        # Gains on three, loses on four: a deficit of 0.1, an error of 0.28.
        (rows("0000011111", "1111111000", "0001110111"), 2, 1),
        # Alike: the deepest.
        (rows("1100", "1100", "1100"), 2, 2),
        (rows("1"), 0, 0),
    ],
)
def test_the_deepest_stage_within_one_standard_error(correct, stage, best):
    choice = one_standard_error_stage(correct)
    assert (choice.stage, choice.best) == (stage, best)
    np.testing.assert_allclose(choice.scores, correct.mean(1))
    assert choice.standard_errors[best] == 0


def test_the_standard_error_is_that_of_the_paired_difference():
    correct = np.random.default_rng(0).random((3, 50)) < 0.7
    choice = one_standard_error_stage(correct)
    differences = correct[choice.best].astype(float) - correct
    expected = differences.std(1, ddof=1) / np.sqrt(50)
    np.testing.assert_allclose(choice.standard_errors, expected)
