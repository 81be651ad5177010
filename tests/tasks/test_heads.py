import numpy as np
import pytest
from sklearn.linear_model import Ridge

from kerastl.advice.probe import SoftmaxProbe
from kerastl.tasks.multi_label import MultiLabel
from kerastl.tasks.regression import RIDGE_PENALTIES, Regression


def fit(task, x, y, groups):
    return task.fit_head(x, y, groups, seed=0, num_outputs=y.shape[1])


def test_labels_are_one_against_the_rest():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype("float32")
    y = np.stack([x[:, 0] + 0.3 * rng.normal(size=90) > 0, np.ones(90), np.zeros(90)], 1)
    kernel, bias = fit(MultiLabel(), x, y.astype("float32"), np.arange(90))
    probe = SoftmaxProbe(seed=0).fit(x, y[:, 0].astype(int), np.arange(90))
    logits = x @ kernel + bias
    expected = probe.predict_proba(x)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), expected, atol=1e-5)
    assert not kernel[:, 1:].any()  # of what all have, or none, a bias alone
    np.testing.assert_allclose(bias[1:], [np.log(181), -np.log(181)], rtol=1e-5)


def test_values_are_ridge_by_leaving_one_out():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 40)) * rng.uniform(0.1, 10, 40) + 5
    y = (x[:, :1] + 3 * rng.normal(size=(60, 1))) * 100 + 7
    kernel, bias = fit(Regression(), x, y, np.arange(60))
    deviation = np.maximum(x.std(0), np.median(x.std(0)))
    scaled = (x - x.mean(0)) / deviation
    losses = {}
    for penalty in RIDGE_PENALTIES:
        gaps = [
            y[i, 0]
            - Ridge(penalty)
            .fit(np.delete(scaled, i, 0), np.delete(y[:, 0], i))
            .predict(scaled[i : i + 1])[0]
            for i in range(60)
        ]
        losses[penalty] = np.mean(np.square(gaps))
    best = Ridge(min(losses, key=losses.get)).fit(scaled, y[:, 0])
    np.testing.assert_allclose((x @ kernel + bias)[:, 0], best.predict(scaled), rtol=1e-3)


def test_a_unit_that_is_hardly_ever_used_throws_no_answer_far_off():
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(200, 30)), 0)
    y = x[:, :1] - x[:, 1:2] + 0.1 * rng.normal(size=(200, 1))
    x[:, 2] = 0
    x[:4, 2] = [1e-3, 2e-3, 1e-3, 3e-3]
    y[:4] += 1  # a chance that per-feature units would make much of
    kernel, bias = fit(Regression(), x, y, np.arange(200))
    seldom = np.concatenate([x[4:5, :2], [[3.0]], x[4:5, 3:]], 1)
    answers = np.concatenate([x, seldom]) @ kernel + bias
    assert np.ptp(answers) < 3 * np.ptp(y)


def test_views_of_an_image_count_as_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 2))
    one = fit(Regression(), x, y, np.arange(30))
    groups = np.tile(np.arange(30), 2)
    two = fit(Regression(), np.concatenate([x, x]), np.concatenate([y, y]), groups)
    np.testing.assert_allclose(one[0], two[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one[1], two[1], rtol=1e-4, atol=1e-6)


def test_a_squared_error_has_to_fall_by_a_standard_error():
    criterion = Regression().keep_criterion(lambda: (np.array([[1.0], [3.0]]), np.zeros((2, 1))))
    assert criterion["least"] == pytest.approx(-5 + 4 / 2**0.5)  # errors 1 and 9
    assert criterion["score"]({"val_loss": 2.0}) == -2.0
