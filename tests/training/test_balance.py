"""Rare classes count for more where that is asked for: in head, phases and what is kept."""

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

import kerastl
from kerastl._task import find_task
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError
from kerastl.frozen.runtime import open_runtime
from kerastl.model.recipe_changes import with_epochs
from kerastl.model.recipes import OBJECTIVES, Phase, make_recipe
from kerastl.training.decision import decide, expected_gain, measure
from kerastl.training.objective import Objective
from kerastl.training.phases import compile_phase
from kerastl.training.training import Training

TASK = find_task("classification")


def test_class_weights_by_hand():
    labels = np.repeat([0, 1], [9, 1])

    assert TASK.class_weights(labels, 2, 0.0).tolist() == [1.0, 1.0]
    assert TASK.class_weights(labels, 2, 1.0) == pytest.approx([10 / 18, 5.0])
    half = TASK.class_weights(labels, 2, 0.5)
    assert half[1] / half[0] == pytest.approx(3.0)
    assert half @ [9, 1] == pytest.approx(10)
    assert np.isfinite(TASK.class_weights(labels, 3, 1.0)).all()  # a class without images


def test_what_mends_rare_images_is_kept_where_they_count_for_more():
    labels = np.repeat([0, 1], [90, 10])
    before, after = labels == 0, np.arange(100) >= 20  # ten of the rare for twenty of the others
    weights = TASK.class_weights(labels, 2, 1.0)[labels]

    assert expected_gain(before, after) < 0 < expected_gain(before, after, weights)
    answers = [
        np.eye(2)[np.where(right, labels, 1 - labels)] * 0.6 + 0.2 for right in (before, after)
    ]
    assert decide(labels, answers[0], {1.0: answers[1]}).share == 0
    assert decide(labels, answers[0], {1.0: answers[1]}, weights).share == 1


def test_objectives_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 4, 60), rng.integers(0, 5, 60)  # one class without images
    known = np.unique(labels)
    expected = {
        "accuracy": accuracy_score(labels, answers),
        "balanced_accuracy": recall_score(labels, answers, labels=known, average="macro"),
        "macro_f1": f1_score(labels, answers, labels=known, average="macro"),
    }
    for objective in OBJECTIVES:
        assert measure(objective, labels, answers) == pytest.approx(expected[objective])
        twice = np.stack([np.ones(60), np.full(60, 2)])
        assert measure(objective, labels, answers, twice) == pytest.approx(expected[objective])


@pytest.mark.parametrize(
    ("objective", "share"), [("accuracy", 0), ("balanced_accuracy", 1), ("macro_f1", 0)]
)
def test_an_objective_decides_what_is_kept(objective, share):
    labels = np.repeat([0, 1], [90, 10])
    before, after = labels == 0, np.arange(100) >= 50  # all of the rare for fifty of the others
    answers = [
        np.eye(2)[np.where(right, labels, 1 - labels)] * 0.6 + 0.2 for right in (before, after)
    ]

    found = decide(labels, answers[0], {1.0: answers[1]}, objective=objective)

    assert found.share == share
    assert f"Validation {objective.replace('_', ' ')} {found.after:.3f}" in found.text("fine_tune")


def test_what_has_no_other_objective():
    with pytest.raises(ArgumentError, match="only one objective. Received: objective='macro"):
        make_recipe(
            "guide", num_stages=2, num_images=9, num_classes=2, task="regression",
            objective="macro_f1",
        )  # fmt: skip


@pytest.fixture(scope="module")
def uneven():
    """Images of a brightness, of classes that overlap: 140 of one, 14 of the other."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [140, 14])
    brightness = rng.normal(np.where(labels == 0, 100, 150), 25).clip(0, 255)
    images = np.broadcast_to(brightness[:, None, None, None], (154, 32, 32, 3))
    return load_data((images.astype("uint8") + rng.integers(0, 1, images.shape, np.uint8), labels))


@pytest.mark.parametrize(
    "scenario", ["small_similar", pytest.param("guide", marks=pytest.mark.slow)]
)
def test_balance_makes_a_rare_class_more_probable(uneven, tiny_backbone, scenario):
    """By the head alone, fitted in one go, and by gradients alone."""
    answers = []
    for balance in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = kerastl.build_transfer_model(tiny_backbone(), 2)
        recipe = make_recipe(
            scenario, num_stages=len(kerastl.stages(model)), num_images=100, num_classes=2,
            backbone="tiny", image_size=(32, 32), augmentation="none",
        )  # fmt: skip
        objective = "balanced_accuracy" if balance else "accuracy"
        recipe = dataclasses.replace(recipe, balance=balance, objective=objective)
        history = kerastl.fine_tune(model, uneven, recipe=with_epochs(recipe, 4), verbose=False)
        assert all(objective.replace("_", " ") in told for told in history.decisions.values())
        assert bool(history.decisions) == (scenario == "guide")
        answers.append(kerastl.collect_predictions(model, uneven.train))

    (before, _), (after, measures) = (
        (one.outputs[:, 1].mean(), one.measures()["classes"][1]) for one in answers
    )
    assert after > before + 0.005
    if scenario == "small_similar":
        recall = answers[0].measures()["classes"][1]["recall"]
        assert measures["recall"] > recall + 0.2


def test_weights_of_classes_take_the_place_of_the_balance(uneven, tiny_backbone):
    """In the head, the loss and the decision alike, here in the head alone."""
    weights = TASK.class_weights(uneven.train.labels, 2, 1.0)
    heads = []
    for balance, class_weight in ((1.0, None), (0.3, dict(enumerate(weights.tolist())))):
        keras.utils.set_random_seed(0)
        model = kerastl.build_transfer_model(tiny_backbone(), 2)
        recipe = make_recipe(
            "small_similar", num_stages=len(kerastl.stages(model)), num_images=100, num_classes=2,
            augmentation="none", balance=balance,
        )  # fmt: skip
        fitted = Training(
            model, uneven, recipe, open_runtime("default"), Objective(class_weight=class_weight)
        )
        fitted.fit_head(recipe.phases[0])
        heads.append(model.get_layer("head").get_weights())
        assert fitted._class_weight() == pytest.approx(dict(enumerate(weights)))
    assert all(map(np.array_equal, *heads))
    phase = Phase("open", 4, epochs=1, learning_rate=1e-3)
    recipe = dataclasses.replace(recipe, balance=1.0)  # a trial of a search has no more
    compiled = compile_phase(model, model, recipe, phase, uneven.train.labels)
    assert compiled.class_weight == pytest.approx(dict(enumerate(weights)))


def test_what_cannot_be_balanced():
    with pytest.raises(ArgumentError, match="there are no classes to balance"):
        make_recipe(
            "guide", num_stages=2, num_images=9, num_classes=2, task="regression", balance=1.0,
            augmentation="none",
        )  # fmt: skip
