import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.linear_model import Ridge, RidgeClassifier

from kerastl.advice import ridge
from kerastl.advice.learning_curve import learning_curve
from kerastl.advice.ridge import (
    ColumnSystem,
    RowSystem,
    fit_ridge,
    gcv,
    one_blas_thread,
    standardised,
    stratified_folds,
)

SHAPES = [(12, 30), (30, 30), (41, 9), (40, 1)]
PENALTIES = np.array([1e-2, 1.0, 50.0])


def problem(num_rows, dim, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    columns = rng.permutation(np.arange(num_rows) % num_classes)
    x = rng.normal(size=(num_rows, dim)) * rng.uniform(0.1, 9, dim) + rng.normal(size=dim)
    x += rng.normal(size=(num_classes, dim))[columns]
    return x, columns, stratified_folds(columns, 5, seed)


def systems(x, columns, folds):
    """Both forms: they are exact for any shape."""
    features, indicators = standardised(x), np.eye(columns.max() + 1, dtype=bool)[columns]
    return RowSystem(features[:], indicators, folds), ColumnSystem(features, indicators, folds)


def refitted(x, columns, penalty, held_out):
    """scikit-learn's ridge without some rows, on features standardised by all."""
    x = (x - x.mean(0)) / x.std(0)
    y = np.eye(columns.max() + 1)[columns]
    return Ridge(alpha=penalty, solver="svd").fit(x[~held_out], y[~held_out]).predict(x[held_out])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_folds_equal_refits(shape, penalty):
    x, columns, folds = problem(*shape)
    expected = np.empty((len(x), 3))
    for fold in range(5):
        expected[folds == fold] = refitted(x, columns, penalty, folds == fold)
    for system in systems(x, columns, folds):
        np.testing.assert_allclose(system.out_of_fold(penalty), expected, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_gcv_equals_the_dense_formula(shape):
    x, columns, folds = problem(*shape)
    z = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(len(x))])
    y = np.eye(3)[columns]
    for system in systems(x, columns, folds):
        found = gcv(system, PENALTIES)
        for penalty, value in zip(PENALTIES, found, strict=True):
            ridged = z.T @ z + penalty * np.diag([1.0] * x.shape[1] + [0.0])
            hat = z @ np.linalg.solve(ridged, z.T)
            error = ((y - hat @ y) ** 2).sum() / len(x) / (1 - np.trace(hat) / len(x)) ** 2
            assert value == pytest.approx(error, abs=1e-8)
            if isinstance(system, RowSystem):
                np.testing.assert_allclose(system.residuals(penalty), y - hat @ y, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_equal_scikit_learn(shape):
    x, columns, folds = problem(*shape)
    fit = fit_ridge(x, columns, folds)
    scaled = (x - x.mean(0)) / x.std(0)
    other = RidgeClassifier(alpha=fit.penalty, solver="svd").fit(scaled, columns)
    scores = x @ fit.coef.T + fit.intercept
    np.testing.assert_allclose(2 * scores - 1, other.decision_function(scaled), atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 24), st.integers(1, 30), st.integers(2, 4), st.integers(0, 99), st.booleans())
def test_both_forms_agree(num_rows, dim, num_classes, seed, constant):
    x, columns, folds = problem(num_rows, dim, num_classes, seed)
    if constant:
        x[:, 0] = 7.3
    rows, blocks = systems(x, columns, folds)
    np.testing.assert_allclose(rows.weights(2.0), blocks.weights(2.0), atol=1e-8)
    np.testing.assert_allclose(rows.out_of_fold(2.0), blocks.out_of_fold(2.0), atol=1e-8)
    np.testing.assert_allclose(gcv(rows, PENALTIES), gcv(blocks, PENALTIES), atol=1e-8)


def test_the_gcv_penalty_is_the_least_of_all():
    x, columns, folds = problem(60, 20)
    system = systems(x, columns, folds)[1]
    candidates = ridge.RELATIVE_PENALTIES * system.eigenvalues.mean()
    best = candidates[gcv(system, candidates).argmin()]
    assert fit_ridge(x, columns, folds).penalty == pytest.approx(best)


def test_a_stream_of_blocks_equals_one_block(tmp_path, monkeypatch):
    x, columns, folds = problem(200, 12)
    x = x.astype("float16")
    np.save(tmp_path / "x.npy", x)
    whole = fit_ridge(x, columns, folds)
    monkeypatch.setattr(ridge, "BLOCK_ROWS", 17)
    streamed = fit_ridge(np.load(tmp_path / "x.npy", mmap_mode="r"), columns, folds)
    for found, expected in zip(streamed, whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_a_large_offset_does_not_drown_the_deviation(monkeypatch):
    monkeypatch.setattr(ridge, "BLOCK_ROWS", 17)
    x, columns, folds = problem(200, 5)
    fit, moved = fit_ridge(x, columns, folds), fit_ridge(x + 1e6, columns, folds)
    np.testing.assert_allclose(moved.out_of_fold, fit.out_of_fold, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_a_projection_onto_rows_keeps_what_they_span(shape, monkeypatch):
    rng = np.random.default_rng(0)
    columns = np.arange(shape[0]) % 2
    x = rng.normal(size=(shape[0], 8)) @ rng.normal(size=(8, shape[1]))
    folds = stratified_folds(columns, 5, 0)
    exact = fit_ridge(x, columns, folds)
    monkeypatch.setattr(ridge, "MAX_RANK", 16)
    system = ridge.standardised(x)
    assert system.shape == (shape[0], 16)
    projected = systems(x, columns, folds)[1]
    full = RowSystem((x - x.mean(0)) / x.std(0), np.eye(2, dtype=bool)[columns], folds)
    np.testing.assert_allclose(projected.out_of_fold(1.0), full.out_of_fold(1.0), atol=1e-8)
    assert fit_ridge(x, columns, folds).coef.shape == exact.coef.shape


@pytest.mark.parametrize("shape", [(100, 300), (100, 20)])
def test_noise_gives_chance(shape):
    rng = np.random.default_rng(0)
    columns = np.arange(100) % 2
    right = 0
    indicators = np.eye(2, dtype=bool)[columns]
    for seed in range(10):
        folds = stratified_folds(columns, 5, seed)
        system = RowSystem(rng.normal(size=shape), indicators, folds)
        right += (system.out_of_fold(100.0).argmax(1) == columns).sum()
    low, high = binom.interval(0.999, 1000, 0.5)
    assert low <= right <= high


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(2, 6), st.integers(1, 3))
def test_folds_share_each_class_and_keep_views_together(labels, num_folds, views):
    y = np.tile(labels, views)
    groups = np.tile(np.arange(len(labels)), views)
    folds = stratified_folds(y, num_folds, 0, groups)
    np.testing.assert_array_equal(folds, np.tile(folds[: len(labels)], views))
    np.testing.assert_array_equal(np.unique(folds), np.arange(min(num_folds, len(labels))))
    for label in set(labels):
        counts = np.bincount(folds[: len(labels)][np.array(labels) == label], minlength=num_folds)
        assert counts[: folds.max() + 1].max() - counts[: folds.max() + 1].min() <= 1


def test_more_images_leave_fewer_errors():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([3, 7], 100))
    x = rng.normal(size=(200, 60)) + 0.35 * (y[:, None] == 7)
    curve = learning_curve(x, y, draws=3)
    assert {size: len(errors) for size, errors in curve.items()} == {24: 3, 50: 3, 100: 3, 200: 3}
    assert np.mean(curve[200]) < np.mean(curve[24])
    assert curve == learning_curve(x, y, draws=3)


def test_the_last_point_is_the_error_over_folds():
    x, columns, _ = problem(60, 100)
    for some in (x, x[:, :20]):
        curve = learning_curve(some, columns, fractions=[1], draws=2, seed=5)
        seeds = np.random.default_rng(5).integers(2**31, size=2)
        for seed, error in zip(seeds, curve[60], strict=True):
            fit = fit_ridge(some, columns, stratified_folds(columns, 5, seed))
            assert error == (fit.out_of_fold.argmax(1) != columns).mean()


def test_a_fraction_with_a_single_image_of_a_class_is_skipped():
    x, columns, _ = problem(24, 5)
    assert list(learning_curve(x, columns)) == [6, 12, 24]
    assert learning_curve(x[:3], np.arange(3)) == {}


def test_matrix_routines_use_one_thread():
    from threadpoolctl import threadpool_info

    with one_blas_thread():
        threads = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert set(threads) <= {1}
