from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from kerastl.results.measures import (
    centred_interval,
    measures,
    share_interval,
)


@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(1, 60))
def test_measures_equal_scikit_learn(seed, num_classes, num_images):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    probabilities = rng.dirichlet(np.ones(num_classes), num_images)
    got = measures(labels, probabilities)
    answers, classes = probabilities.argmax(1), list(range(num_classes))
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(labels, answers))
    for name in ("precision", "recall", "f1"):
        score = getattr(metrics, f"{name}_score")
        expected = score(labels, answers, average="macro", zero_division=0.0)
        assert got[f"macro_{name}"] == pytest.approx(expected)
        expected = score(labels, answers, average=None, labels=classes, zero_division=np.nan)
        of_classes = [np.nan if row[name] is None else row[name] for row in got["classes"]]
        assert of_classes == pytest.approx(expected.tolist(), nan_ok=True)
    expected = metrics.log_loss(labels, probabilities, labels=classes)
    assert got["log_loss"] == pytest.approx(expected)
    one_hot = np.eye(num_classes)[labels]
    assert got["brier"] == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())
    if num_classes > 2:
        expected = metrics.brier_score_loss(
            labels, probabilities, labels=classes, scale_by_half=False
        )
    else:
        expected = 2 * metrics.brier_score_loss(labels, probabilities[:, 1], labels=classes)
    assert got["brier"] == pytest.approx(expected)
    k = min(5, num_classes - 1)
    assert got["top_k"] == k
    if num_classes > 2:
        expected = metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=classes)
        assert got["top_k_accuracy"] == pytest.approx(expected)
    else:
        assert got["top_k_accuracy"] == got["accuracy"]
    assert [row["num_images"] for row in got["classes"]] == np.bincount(
        labels, minlength=num_classes
    ).tolist()


@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 40))
def test_every_interval_holds_its_value(seed, num_classes, num_images):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    got = measures(labels, rng.dirichlet(np.full(num_classes, 0.3), num_images))
    for name, (low, high) in got["intervals"].items():
        assert 0 <= low <= got[name] <= high, name
        assert name == "log_loss" or high <= (2 if name == "brier" else 1)
    for row in got["classes"]:
        for name in ("precision", "recall", "f1"):
            if row[name] is None or (name == "f1" and not row["num_images"]):
                assert row[f"{name}_interval"] is None
            else:
                low, high = row[f"{name}_interval"]
                assert 0 <= low <= row[name] <= high <= 1


def test_draws_without_a_class_say_nothing_of_it():
    labels = np.repeat([0, 1], [38, 2])
    (_, rare) = measures(labels, np.eye(2)[labels])["classes"]

    assert rare["f1_interval"] == [1.0, 1.0]  # of an eighth of the draws it was 0


@pytest.mark.parametrize("num_sets", [80, pytest.param(200, marks=pytest.mark.slow)])
def test_the_intervals_hold_the_truth_19_times_of_20(num_sets):
    """Many sets of 150 images of one population, and its value from many more images."""
    rng = np.random.default_rng(0)

    def draw(num_images):
        labels = rng.integers(0, 3, num_images)
        scores = rng.normal(size=(num_images, 3)) + 1.5 * np.eye(3)[labels]
        return labels, np.exp(scores) / np.exp(scores).sum(1, keepdims=True)

    truth = measures(*draw(20_000))
    found = [measures(*draw(150))["intervals"] for _ in range(num_sets)]
    for name, least in (("log_loss", 0.9), ("brier", 0.9), ("macro_f1", 0.88)):
        share = np.mean([low <= truth[name] <= high for low, high in (f[name] for f in found)])
        assert least <= share <= 0.99, name


def test_an_interval_is_moved_onto_its_value():
    draws = np.linspace(0.2, 0.4, 1001)
    assert centred_interval(draws, 0.1, 1.0) == pytest.approx([0.005, 0.195])
    assert centred_interval(draws, 0.0, 1.0) == pytest.approx([0.0, 0.095])
    assert centred_interval(draws, 1.0, 1.0) == pytest.approx([0.905, 1.0])


def test_the_interval_of_a_share_is_wilsons():
    z, p, n = NormalDist().inv_cdf(0.975), 0.9, 100
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    assert share_interval(90, 100) == pytest.approx((centre - half, centre + half))
    assert share_interval(0, 0) is None


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
    # Bin of 0.9: half right, gap 0.4, two images; 0.6: wrong, gap 0.6; 1.0: right, gap 0.
    labels = np.array([0, 1, 0, 1])
    assert measures(labels, probabilities)["ece"] == pytest.approx((0.8 + 0.6) / 4)


def test_a_class_without_images_or_answers_is_not_measured():
    labels, probabilities = np.array([0, 0]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    first, second, third = measures(labels, probabilities)["classes"]
    assert (first["precision"], first["recall"], first["f1"]) == (1.0, 0.5, pytest.approx(2 / 3))
    assert (second["precision"], second["recall"], second["num_answered"]) == (0.0, None, 1)
    assert (third["precision"], third["recall"], third["f1"]) == (None, None, None)
