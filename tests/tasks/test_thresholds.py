"""Thresholds of labels: chosen, kept in the model, and used by all that answers."""

import json

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score

from kerastl._task import find_task, task_names
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError
from kerastl.model.heads import task_of
from kerastl.results.evaluate import collect_predictions, evaluate
from kerastl.results.thresholds import choose_thresholds
from kerastl.runs.classifier import read_classifier
from kerastl.serving.artifacts import ANSWERS, SavedModel
from kerastl.serving.export import export_model
from kerastl.tasks._thresholds import best_thresholds, read_thresholds
from kerastl.training.fine_tune import fine_tune
from tests.tasks.test_tasks import NAMES, example_labels, images_of, model_of


def rare_labels(count=80):
    rng = np.random.default_rng(0)
    truth = (rng.random((count, 3)) < [0.3, 0.5, 0.02]).astype("float32")
    outputs = np.clip(0.35 * truth + rng.normal(0.2, 0.12, truth.shape), 0, 1).astype("float32")
    return truth, outputs


def test_each_is_the_cut_of_the_highest_f1():
    truth, outputs = rare_labels()
    found = best_thresholds(truth, outputs)
    for place in range(2):
        cuts = np.concatenate([[0], np.unique(outputs[:, place])])
        best = max(f1_score(truth[:, place], outputs[:, place] > cut) for cut in cuts[:-1])
        got = f1_score(truth[:, place], outputs[:, place] > found[place])
        assert got == pytest.approx(best)
        assert got > f1_score(truth[:, place], outputs[:, place] > 0.5)
    assert truth[:, 2].sum() < 10
    assert found[2] == 0.5


def test_equal_probabilities_are_not_parted():
    truth = (np.arange(40) % 2)[:, None]
    assert 0 <= best_thresholds(truth, np.full((40, 1), 0.25, "float32"))[0] < 0.25


@pytest.mark.parametrize("text", ["3", "[]", '["a"]', "[2]", "[NaN]", "[true, null]"])
def test_a_file_of_something_else_is_refused(text):
    with pytest.raises(DataError, match="must be a list of numbers from 0 to 1, one per label"):
        read_thresholds(text)


def biased_model():
    """A model whose head says little: probabilities lie far below one half."""
    keras.utils.set_random_seed(0)
    model = model_of(find_task("multi_label"))
    head = model.get_layer("head")
    rng = np.random.default_rng(0)
    head.set_weights([rng.normal(size=head.kernel.shape) * 0.3, np.full(3, -2.0, "float32")])
    return model


def test_all_that_answers_goes_by_them(tmp_path):
    labels = example_labels(find_task("multi_label"), 80)
    images, model = images_of(labels), biased_model()
    before = evaluate(model, (images, labels))
    found = choose_thresholds(model, (images, labels))
    after = evaluate(model, (images, labels))
    assert after["macro_f1"] > before["macro_f1"] + 0.1
    assert after["mean_average_precision"] == before["mean_average_precision"]
    assert [row["threshold"] for row in after["labels"]] == pytest.approx(found, abs=1e-6)
    outputs = model.predict(images, verbose=0)
    present = outputs > np.float32(found)
    np.testing.assert_array_equal(collect_predictions(model, (images, labels)).answers, present)

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(task_of(again).thresholds, np.float32(found))

    version = export_model(again, tmp_path / "served", parity_data=images[:16])
    assert json.loads((version / ANSWERS).read_text()) == found
    served = SavedModel(version)
    run = served.run("serving_default", image=images.astype("float32"))
    np.testing.assert_array_equal(run["present"], present)
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    for classifier in (read_classifier(version), read_classifier(tmp_path / "model.keras")):
        for row, truth in zip(classifier.predict_images(images).rows(), present, strict=True):
            told = {one["label"] for one in row["labels"]}
            assert told == {NAMES[place] for place in np.flatnonzero(truth)}
    data = load_data((images, labels), task="multi_label", class_names=NAMES)
    fine_tune(again, data, recipe="small_similar", verbose=False)
    assert task_of(again) is find_task("multi_label")  # of other weights they would be wrong


def test_by_a_cost_they_are_the_share_that_a_false_answer_costs():
    labels = example_labels(find_task("multi_label"), 40)
    model = biased_model()
    assert choose_thresholds(model, (images_of(labels), labels), cost=4) == [0.2] * 3
    assert task_of(model).thresholds.tolist() == pytest.approx([0.2] * 3)
    with pytest.raises(ArgumentError, match="`cost` must be"):
        choose_thresholds(model, (images_of(labels), labels), cost=0)


@pytest.mark.parametrize("name", sorted({*task_names()} - {"multi_label"}))
def test_where_there_is_nothing_to_choose_it_is_said(name):
    labels = example_labels(find_task(name), 20)
    model = model_of(find_task(name))
    with pytest.raises(ArgumentError, match="takes task='multi_label' alone"):
        choose_thresholds(model, (images_of(labels), labels))
