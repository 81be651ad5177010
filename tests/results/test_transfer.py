import json

import keras
import numpy as np
import pytest
from scipy import stats

from kerastl._task import find_task, task_names
from kerastl.data.load import load_data
from kerastl.model.recipes import Phase, Recipe
from kerastl.results.transfer import compare_transfer, paired_interval, score_of
from tests.tasks.test_tasks import NAMES, example_labels, images_of
from tests.training.small import small_backbone


@pytest.mark.parametrize("gain", [-0.3, 0.0, 0.4])
def test_intervals_of_scores_are_those_of_a_paired_test(gain):
    rng = np.random.default_rng(0)
    first = rng.normal(size=500)
    second = first - gain + rng.normal(size=500)
    low, high = paired_interval(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-3)
    assert score_of(first)["score"] == pytest.approx(first.mean())
    assert score_of(first[:1])["interval"] == [first[0] - 1, first[0] + 1]


def test_intervals_of_right_answers_count_pairs():
    first, second = np.array([True] * 30 + [False] * 10), np.array([True] * 25 + [False] * 15)
    low, high = paired_interval(first, second)
    assert low < 5 / 40 < high
    assert score_of(first) == {"score": 0.75, "interval": pytest.approx([0.598, 0.858], abs=1e-3)}


@pytest.mark.parametrize(
    "name", [name for name in task_names() if "probe" in find_task(name).supports]
)
def test_arms_of_every_task_are_compared(name, tmp_path):
    task = find_task(name)
    labels = example_labels(task, 40)
    how = {"task": name, "class_names": NAMES, "test_fraction": 0.3, "seed": 0}
    data = load_data((images_of(labels), labels), **how)
    keras.utils.set_random_seed(0)
    small_backbone().save(tmp_path / "backbone.keras")
    recipe = Recipe(
        "lp_ft",
        (Phase("head", 2, "probe"), Phase("fine_tune", 1, epochs=1, learning_rate=1e-3)),
        backbone=str(tmp_path / "backbone.keras"), task=name, augmentation="none",
    )  # fmt: skip
    found = json.loads(json.dumps(compare_transfer(data, recipe, verbose=False)))
    assert [arm["name"] for arm in found["arms"]] == ["head_only", "fine_tuned"]
    assert found["num_images"] == len(data.test)
    (difference,) = found["differences"]
    low, high = difference["interval"]
    assert low <= difference["difference"] <= high
    scores = [arm["score"] for arm in found["arms"]]
    assert difference["difference"] == pytest.approx(scores[0] - scores[1])
