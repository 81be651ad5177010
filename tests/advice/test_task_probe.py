"""A probe is scored as its task is, whatever is told of an image."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, r2_score

from kerastl._task import find_task, task_names
from kerastl.advice.probe import LinearProbe
from kerastl.advice.task_probe import ProbeLabels, probe_curve, probe_scores
from kerastl.tasks._label_measures import precision_by_image
from tests.tasks.test_tasks import example_labels


@pytest.fixture(params=[name for name in task_names() if "probe" in find_task(name).supports])
def task(request):
    return find_task(request.param)


def features_of(labels, noise=0.3):
    rng = np.random.default_rng(0)
    rows = np.eye(3)[labels] if labels.ndim == 1 else labels
    values = rows @ rng.normal(size=(3, 20)) + noise * rng.normal(size=(len(rows), 20))
    return values.astype("float32")


def outputs_of(labels):
    rng = np.random.default_rng(1)
    rows = np.eye(3)[labels] if labels.ndim == 1 else labels
    return rows + 0.5 * rng.normal(size=rows.shape)


EXPECTED = {
    "classification": lambda labels, outputs: (outputs.argmax(1) == labels).mean(),
    "multi_label": lambda labels, outputs: average_precision_score(labels, outputs),
    "regression": lambda labels, outputs: r2_score(labels, outputs),
}


def test_the_scores_of_images_have_the_score_for_their_mean(task):
    labels = example_labels(task)
    each = task.image_scores(labels, outputs_of(labels))
    assert each.shape == (60,)
    assert each.mean() == pytest.approx(EXPECTED[task.name](labels, outputs_of(labels)))


def test_where_no_image_has_a_label_none_is_found():
    nothing = np.zeros((5, 2), "float32")
    assert find_task("multi_label").image_scores(nothing, nothing).tolist() == [0] * 5


def test_of_classes_they_are_those_of_the_linear_probe():
    task = find_task("classification")
    labels = np.array([0, 1, 3])[example_labels(task)]  # of class 2 there is no image
    x = features_of(labels % 3, noise=2.0)
    right = LinearProbe(seed=3).fit(x, labels).is_right_
    np.testing.assert_array_equal(probe_scores(task, x, labels, seed=3), right)
    assert 0.4 < right.mean() < 0.95


def test_a_probe_is_held_against_a_guess(task):
    labels = example_labels(task, 200)
    good = probe_scores(task, features_of(labels), labels)
    assert task.guess(labels) + 0.3 < good.mean() <= 1
    assert task.beats_guess(good, labels)
    noise = np.random.default_rng(0).normal(size=(200, 20))
    of_noise = probe_scores(task, noise, labels)
    assert of_noise.mean() < task.guess(labels) + 0.2
    assert not task.beats_guess(of_noise, labels)


def test_the_units_of_numbers_change_nothing():
    task = find_task("regression")
    labels = example_labels(task) * [1, 1e3, 1e-3] + [5, 1e6, 0]
    x = features_of(example_labels(task))
    np.testing.assert_allclose(
        probe_scores(task, x, labels), probe_scores(task, x, example_labels(task)), atol=1e-3
    )
    np.testing.assert_allclose(ProbeLabels(task, labels).targets.std(0), 1, rtol=1e-6)


def test_the_error_falls_with_the_images(task):
    labels = example_labels(task, 400)
    curve = probe_curve(task, features_of(labels, noise=2.0), labels, seed=0)
    assert curve.num_images == 400
    error = 1 - probe_scores(task, features_of(labels, noise=2.0), labels).mean()
    assert curve.error(400) == pytest.approx(error, abs=0.05)
    assert curve.error(50) > curve.error(400) > curve.doubled.error > 0
    few = example_labels(task, 5)
    assert probe_curve(task, features_of(few), few, seed=0) is None


def test_the_precision_by_image_is_the_jackknife():
    rng = np.random.default_rng(0)
    truth, scores = rng.random(40) < 0.3, rng.random(40)
    each = precision_by_image(truth, scores)
    rest = [np.delete(np.arange(40), index) for index in range(40)]
    without = np.array([average_precision_score(truth[some], scores[some]) for some in rest])
    np.testing.assert_allclose(each - each.mean(), -39 * (without - without.mean()), atol=1e-9)
    assert precision_by_image(np.arange(4) == 2, np.array([3, 1, 2, 0])) == pytest.approx(0.5)


def test_what_the_imagenet_classifier_explains(task):
    labels = example_labels(task, 200)
    rows = np.eye(3)[labels] if task.has_one_class else labels
    theta = np.eye(8)[(rows @ [1, 2, 4]).astype(int)]
    found = task.source_share(theta, labels)
    if not task.has_probabilities:
        assert found is None  # numbers have no entropy
        return
    assert found > 0.9
    assert task.source_share(np.full((200, 8), 1 / 8), labels) < 0.05
