import numpy as np
import pytest
from sklearn import metrics

from kerastl.tasks._label_measures import measure_labels, weighted_average_precisions
from kerastl.tasks.regression import measure_values


@pytest.fixture(scope="module")
def labelled():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (80, 3)).astype("float32")
    scores = np.clip(0.6 * truth + rng.uniform(0, 0.7, truth.shape), 0.01, 0.99)
    return truth, scores.round(2).astype("float32")  # with ties


def test_labels_as_scikit_learn_has_them(labelled):
    truth, scores = labelled
    found, answers = measure_labels(truth, scores), scores > 0.5
    assert found["mean_average_precision"] == pytest.approx(
        metrics.average_precision_score(truth, scores, average="macro")
    )
    for name in ("micro", "macro"):
        expected = metrics.f1_score(truth, answers, average=name)
        assert found[f"{name}_f1"] == pytest.approx(expected)
    assert found["hamming_loss"] == pytest.approx(metrics.hamming_loss(truth, answers))
    assert found["subset_accuracy"] == pytest.approx(metrics.accuracy_score(truth, answers))
    expected = np.mean([metrics.log_loss(truth[:, i], scores[:, i]) for i in range(3)])
    assert found["log_loss"] == pytest.approx(expected, rel=1e-6)
    for place, row in enumerate(found["labels"]):
        own, said = truth[:, place], answers[:, place]
        assert row["precision"] == pytest.approx(metrics.precision_score(own, said))
        assert row["recall"] == pytest.approx(metrics.recall_score(own, said))
        assert row["f1"] == pytest.approx(metrics.f1_score(own, said))
    for name, interval in found["intervals"].items():
        assert interval[0] <= found[name] <= interval[1]
        assert interval[1] - interval[0] > 0.01


def test_weighted_average_precision_as_scikit_learn_has_it(labelled):
    truth, scores = labelled
    weights = np.random.default_rng(1).integers(0, 4, (5, 80)).astype("float64")
    got = weighted_average_precisions(truth[:, 0] > 0.5, scores[:, 0], weights)
    for value, own in zip(got, weights, strict=True):
        expected = metrics.average_precision_score(truth[:, 0], scores[:, 0], sample_weight=own)
        assert value == pytest.approx(expected)


def test_a_label_that_no_image_has_is_not_known(labelled):
    truth, scores = (array.copy() for array in labelled)
    truth[:, 1] = 0
    found = measure_labels(truth, scores)
    assert found["labels"][1]["average_precision"] is None
    assert found["labels"][1]["recall"] is None
    assert found["mean_average_precision"] is not None


def test_numbers_as_scikit_learn_has_them():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 2)) * (1, 10)
    values = truth + rng.normal(size=truth.shape)
    found = measure_values(truth, values)
    kept = {
        "mean_absolute_error": metrics.mean_absolute_error,
        "root_mean_squared_error": metrics.root_mean_squared_error,
        "r2": metrics.r2_score,
        "median_absolute_error": metrics.median_absolute_error,
    }
    for name, score in kept.items():
        assert found[name] == pytest.approx(score(truth, values))
        low, high = found["intervals"][name]
        assert low < found[name] < high
        for place, target in enumerate(found["targets"]):
            assert target[name] == pytest.approx(score(truth[:, place], values[:, place]))


def test_the_bootstrap_is_that_of_the_images():
    """The interval of the mean error is near that of the normal law."""
    rng = np.random.default_rng(0)
    gaps = rng.uniform(0, 2, 400)
    found = measure_values(np.arange(400.0)[:, None], np.arange(400.0)[:, None] + gaps[:, None])
    low, high = found["intervals"]["mean_absolute_error"]
    error = 1.96 * gaps.std() / 20
    assert low == pytest.approx(gaps.mean() - error, abs=0.02)
    assert high == pytest.approx(gaps.mean() + error, abs=0.02)
