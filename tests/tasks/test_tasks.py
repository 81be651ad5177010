"""What every task keeps to, and that a new one is a file."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

import kerastl.tasks
from kerastl._features import FEATURES
from kerastl._measure import headlines
from kerastl._task import (
    DEFAULT_TASK,
    Task,
    _load,
    all_tasks,
    check_supports,
    find_task,
    task_names,
)
from kerastl.advice.advise import advise
from kerastl.advice.diagnosis import diagnose
from kerastl.advice.rank import rank_backbones
from kerastl.data.load import load_data
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.heads import task_of
from kerastl.results.evaluate import collect_predictions, evaluate
from kerastl.serving.artifacts import SavedModel
from kerastl.serving.export import export_model
from kerastl.training.fine_tune import fine_tune
from kerastl.training.hypermodel import TransferHyperModel
from kerastl.training.oracles import SearchSpace
from kerastl.training.search import search
from tests.training.small import small_backbone

NAMES = ["a", "b", "c"]


def example_labels(task, count=60):
    """Labels of three outputs that a task takes as arrays."""
    numbers = np.arange(count)
    if task.has_one_class:
        return numbers % 3
    return np.stack([numbers % 2, numbers % 3 == 0, numbers % 5 == 0], 1).astype("float32")


def images_of(labels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (len(labels), 8, 8, 3))
    rows = np.eye(3)[labels] if labels.ndim == 1 else labels
    return (images + 150 * rows[:, None, None]).astype("uint8")


def model_of(task):
    return build_transfer_model(small_backbone(), 3, task=task.name, class_names=NAMES)


def with_labels(data, labels):
    return dataclasses.replace(data, train=Split(data.train.source, labels, 3, data.task))


@pytest.fixture(params=task_names())
def any_task(request):
    return find_task(request.param)


@pytest.fixture(params=[name for name in task_names() if not find_task(name).has_boxes])
def task(request):
    return find_task(request.param)


def test_each_record_is_complete(any_task):
    task = any_task
    for name in Task.__annotations__:
        assert hasattr(task, name), name
    assert task.supports <= set(FEATURES)
    assert {"results", "worst"} <= {name for name, _ in task.page_sections}
    assert set(task.columns.names) == {name.lower() for name in task.columns.names}
    for attribute in ("name", "model_name", "fingerprint", "served_names", "title"):
        assert len({getattr(one, attribute) for one in all_tasks()}) == len(task_names())


def test_a_miss_names_what_is_near():
    with pytest.raises(ArgumentError, match=r"`task` must be one of .* mean 'multi_label'\?"):
        find_task("multilabel")


@pytest.mark.parametrize("feature", FEATURES)
def test_what_a_task_has_not_is_refused(any_task, feature):
    task = any_task
    if feature in task.supports:
        check_supports(task.name, feature)
        return
    with pytest.raises(ArgumentError, match="takes task='.*Received: task='"):
        check_supports(task.name, feature)


IN_LIMITS = {
    "class_weight": "class_weight", "temperature": "temperature",
    "thresholds": "thresholds for one class", "map": "maps for regression",
    "integers": "8-bit formats for regression",
    "probe": "probe (`diagnose`, `rank`)", "search": "`search`", "explain": "`explain`",
    "devices": "several devices", "formats": "formats but a SavedModel", "resize": "`resize` but",
}  # fmt: skip


def test_what_a_task_has_not_is_in_the_docs():
    """Nothing else is refused for its task: the rooms ask `check_supports` alone."""
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
    refused = {f for f in FEATURES if not all(f in one.supports for one in all_tasks())}
    assert refused == set(IN_LIMITS)
    assert all(words in page for words in IN_LIMITS.values())


def test_scores_are_read_back_from_the_table(task):
    labels = example_labels(task)
    outputs = np.random.default_rng(1).random((60, 3))
    answers = task.predictions(labels, outputs, NAMES)
    rows = list(csv.DictReader(io.StringIO(answers.to_csv())))
    np.testing.assert_allclose(
        task.scores_of_rows(rows), task.image_scores(labels, outputs), rtol=1e-6
    )
    with pytest.raises(KeyError):
        task.scores_of_rows([{"index": "0"}])


@pytest.mark.parametrize("head", ["linear", "stages", "mlp"])
def test_the_task_travels_with_the_model(task, head, tmp_path):
    model = build_transfer_model(small_backbone(), 3, task=task.name, head=head)
    assert task_of(model) is task
    assert task_of(keras.models.clone_model(model)) is task
    model.save(tmp_path / "model.keras")
    assert task_of(keras.saving.load_model(tmp_path / "model.keras")) is task


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_models_of_version_0_1_0_are_what_they_were(task, head, tmp_path):
    """All were named transfer_model; the activation of the head told the task."""
    model = build_transfer_model(small_backbone(), 3, task=task.name, head=head)
    keras.Model(model.input, model.output, name="transfer_model").save(tmp_path / "old.keras")
    assert task_of(keras.saving.load_model(tmp_path / "old.keras", compile=False)) is task


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_a_foreign_model_is_a_classifier_whatever_its_last_layer(activation):
    head = keras.layers.Dense(3, activation=activation, name="head")
    assert task_of(keras.Sequential([keras.Input((4,)), head])).name == DEFAULT_TASK


def test_labels_are_taken_checked_and_grouped(task):
    labels = example_labels(task)
    data = load_data((images_of(labels), labels), task=task.name, class_names=NAMES)
    assert data.task == task.name
    own = data.train.labels
    assert own.dtype == (np.int64 if task.has_one_class else np.float32)
    assert own.shape[1:] == (() if task.has_one_class else (3,))
    np.testing.assert_array_equal(task.given_labels(own, 3), own)
    assert task.stratification_groups(own).shape == (len(own),)
    assert len(task.count_images(own, 3)) == 3
    assert len(task.images_of(own, 1))
    assert task.label_text(own, 0, NAMES)
    _, y = next(iter(data.train.batches(8, 4, one_hot=True)))
    assert y.shape == (4, 3)


def test_heads_fit_and_are_measured(task):
    rng = np.random.default_rng(0)
    labels = example_labels(task)
    rows = np.eye(3)[labels] if labels.ndim == 1 else labels
    x = (rows @ rng.normal(size=(3, 5)) + 0.1 * rng.normal(size=(60, 5))).astype("float32")
    kernel, bias = task.fit_head(x, labels, np.arange(60), seed=0, num_outputs=3)
    assert (kernel.shape, bias.shape) == ((5, 3), (3,))
    outputs = np.asarray(keras.activations.get(task.activation)(x @ kernel + bias))
    start = np.asarray(keras.activations.get(task.activation)(np.zeros((60, 3), "float32")))
    found = task.head_measures(labels, outputs, labels)
    assert set(found) == {"loss", task.watched}
    assert found["loss"] < task.head_measures(labels, start, labels)["loss"]
    criterion = task.keep_criterion(lambda: (labels, outputs))
    if criterion:
        logs = {f"val_{name}": value for name, value in found.items()}
        assert np.isfinite([criterion["least"], criterion["score"](logs)]).all()


def test_answers_are_measured_and_told(task):
    labels, model = example_labels(task, 20), model_of(task)
    found = collect_predictions(model, (images_of(labels), labels))
    measures = found.measures()
    for told in (task.measures, task.card_measures):
        assert len(headlines(measures, told)) == len(told)
    for row in measures[task.plural]:
        assert len(headlines(row, task.output_measures)) == len(task.output_measures)
    assert len(task.measure_cells(measures)) == len(task.measure_columns())
    assert "20" in task.test_sentence(measures)
    assert {"index", "path", "label", "answer", "loss"} <= set(found.row(0))
    assert len(found.to_csv().splitlines()) == 21
    _, name, number = task.told_columns
    for one in task.describe_outputs(found.outputs[0], NAMES, None):
        assert one[name] in NAMES
        for digits in task.told_digits:
            assert f"{one[number]:{digits}}"


def test_what_is_served_is_known_again(task, tmp_path):
    labels, model = example_labels(task, 4), model_of(task)
    served = SavedModel(export_model(model, tmp_path / "served"))
    assert served.task is task
    images = images_of(labels)
    np.testing.assert_allclose(
        served.classify(images), model.predict_on_batch(images), rtol=1e-4, atol=1e-5
    )
    outputs = served.run("serving_default", image=images.astype("float32"))
    assert {len(value) for value in outputs.values()} == {4}


def test_it_is_measured_and_advised(task, tmp_path):
    labels = example_labels(task, 120)
    data = load_data((images_of(labels), labels), task=task.name, class_names=NAMES)
    found = diagnose(model_of(task), data, seed=1)
    assert found.task == task.name
    assert found.trustworthy
    assert found.curve.num_images == len(data.train)
    assert f"({task.score.title})" in str(found)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["probe"][task.score.key] == plain["profile"][-1]["score"] > 0.5
    assert task.score.title in found.plot().axes[0].get_ylabel()
    advice = advise(found)
    assert advice.recipe.task == task.name
    assert advice.recipe.augmentation == (task.augmentation or "flip")
    assert task.score.title in advice.summary
    noise = np.random.default_rng(0).permutation(data.train.labels)
    of_noise = diagnose(model_of(task), with_labels(data, noise))
    assert not of_noise.trustworthy
    assert any("not better than a guess (" in text for text in of_noise.warnings)
    file = tmp_path / "backbone.keras"
    small_backbone().save(file)
    (ranked,) = rank_backbones(data, [str(file)], weights="random")
    assert ranked.probe_score > task.guess(data.train.labels)


def test_it_is_searched(task, tmp_path):
    labels = example_labels(task, 90)
    data = load_data((images_of(labels), labels), task=task.name, class_names=NAMES)
    how = {
        "max_trials": 2, "space": SearchSpace(freeze_depths=(0, 2), max_epochs=1), "verbose": False,
        "directory": tmp_path / "search", "train_best": False,
    }  # fmt: skip
    backbone = small_backbone()
    result = search(data, backbone, **how)
    assert {trial.status for trial in result.trials} == {"completed"}
    assert sorted(trial.epochs for trial in result.trials) == [0, 1]
    for trial in result.trials:
        assert trial.score == pytest.approx(trial.image_scores.mean())
    assert result.recipe.task == task.name
    assert f"validation {task.score.title} " in result.summary()
    assert "validation" in result.plot().axes[0].get_ylabel()
    again = search(data, backbone, **how)
    assert [trial.score for trial in again.trials] == [trial.score for trial in result.trials]
    space = TransferHyperModel(backbone, 3, task=task.name)
    model = space.build(keras_tuner.HyperParameters())
    assert task_of(model) is task
    assert model.loss == task.loss


KEY_POINTS = '''
"""Places of named points: each output is a share of the width or of the height."""

from kerastl._label_columns import LabelColumns
from kerastl.tasks.regression import Regression, parse_numbers


class KeyPoints(Regression):
    name = "key_points"
    singular, plural = "coordinate", "targets"
    activation, activation_in_0_1 = "sigmoid", None
    columns = LabelColumns("coordinates", (), True, parse_numbers)
    title, hub_tag = "key points", "keypoint-detection"
    served_output = "places"
    served_names = frozenset({"places", "target"})

    def serve(self, outputs, class_names):
        return {"places": outputs, "target": super().serve(outputs, class_names)["target"]}

    def target_scale(self, labels):
        return None

    def head_measures(self, labels, outputs, train_labels):
        return {"loss": float(((outputs - labels) ** 2).mean()), "mean_absolute_error": 0.0}


TASK = KeyPoints()
'''


def test_a_new_task_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "key_points.py").write_text(KEY_POINTS)
    monkeypatch.setattr(kerastl.tasks, "__path__", [*kerastl.tasks.__path__, str(tmp_path)])
    try:
        task = find_task("key_points")
        labels = example_labels(task)
        data = load_data((images_of(labels), labels), task="key_points", class_names=NAMES)
        model = model_of(task)
        assert task_of(model) is task
        recipe = kerastl.make_recipe(
            "guide", num_stages=2, num_images=60, num_classes=3, task="key_points"
        )
        assert recipe.augmentation == "none"
        fine_tune(model, data, recipe=recipe, epochs=1, verbose=False)
        assert np.isfinite(evaluate(model, data.test)["mean_absolute_error"])
        served = SavedModel(export_model(model, tmp_path / "served", parity_data=data.test))
        assert (served.task, served.answer) == (task, "places")
    finally:
        _load.cache_clear()
