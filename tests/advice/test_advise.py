import dataclasses
import json

import keras
import numpy as np
import pytest

from kerastl.advice import evidence
from kerastl.advice.advise import BATCH_SIZE, LEARNING_RATE, advise
from kerastl.advice.diagnosis import Diagnosis, StageProbe, diagnose
from kerastl.advice.evidence import Evidence
from kerastl.advice.scores import LearningCurve, Prediction
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import stages
from kerastl.model.recipes import Phase, Recipe, fine_tune_epochs
from kerastl.serving.export import export_model
from kerastl.training.fine_tune import fine_tune, is_head_only

COEFFICIENTS = {
    "provenance": "made up",
    "gains": {"last_stage": [0.1, 0, 0, 0], "half": [0, 0.3, 0, 0], "all": [0, 0, 0, 0.8]},
    "least_gain": 0.005,
    "least_lead": 1.0,
}
ACCURACIES = (0.4, 0.7, 0.6, 0.8)


@pytest.fixture(autouse=True)
def _known_coefficients(monkeypatch):
    numbers = evidence.coefficients() | COEFFICIENTS
    for module in ("evidence", "advise"):
        monkeypatch.setattr(f"kerastl.advice.{module}.coefficients", lambda: numbers)


def diagnosed(
    scenario="small_similar",
    num_images=200,
    probe_error=0.2,
    different=0.5,
    earlier_lead=-1.0,
    best_stage=3,
    accuracies=ACCURACIES,
    takes_head=True,
    curve=None,
):
    """A diagnosis of nothing in particular."""
    profile = [
        StageProbe(index, f"stage_{index}", accuracy, 0.01, takes_head)
        for index, accuracy in enumerate(accuracies)
    ]
    return Diagnosis(
        scenario=scenario,
        probability=0.75,
        large=0.25,
        different=different,
        evidence=Evidence(num_images, 4, probe_error, 0.1, earlier_lead=earlier_lead),
        images_per_class=dict.fromkeys("abcd", num_images // 4),
        num_sampled=num_images,
        profile=tuple(profile),
        best_stage=best_stage,
        shift=None,
        curve=curve,
        h_score=1.0,
        log_evidence=-1.0,
        image_size=(64, 96),
        median_side=100,
        warnings=(),
    )


def curve_of(a, b, num_images=200):
    nothing = Prediction(num_images, 0.0, 0.0, 0.0)
    return LearningCurve(a, b, num_images, nothing, nothing)


def reasons_of(advice):
    return {reason.name: reason for reason in advice.reasons}


def test_the_head_alone():
    advice = advise(diagnosed(probe_error=0.0))
    assert advice.recipe.phases == (Phase("head", 4, "probe"),)
    assert advice.recipe.cut is None
    assert advice.recipe.name == "small_similar"
    reasons = reasons_of(advice)
    assert reasons["freeze_depth"].value == "4 of 4"
    assert "the best alternative" in reasons["freeze_depth"].why
    assert reasons["cut"].value == "none"
    assert "epochs" not in reasons


@pytest.mark.parametrize(
    ("num_images", "different", "depth", "gain"),
    [(200, 0.5, 3, "+2.0"), (200, 1.0, 2, "+6.0"), (2000, 1.0, 0, "+16.0")],
)
def test_what_is_opened_is_what_is_expected_to_gain_most(num_images, different, depth, gain):
    advice = advise(diagnosed(num_images=num_images, different=different))
    head, last = advice.recipe.phases
    assert head == Phase("head", 4, "probe")
    assert last.freeze_depth == depth
    assert last.method == "gradient"
    assert last.learning_rate == LEARNING_RATE
    assert last.epochs == fine_tune_epochs(num_images, BATCH_SIZE)
    assert f"is expected to gain {gain} points" in reasons_of(advice)["freeze_depth"].why


def changed_fields(recipe):
    """Names of the fields of a recipe and its last phase that are not their defaults."""
    return {
        field.name
        for record in (recipe, recipe.phases[-1])
        for field in dataclasses.fields(record)
        if field.default not in (dataclasses.MISSING, getattr(record, field.name))
    }


@pytest.mark.parametrize("scenario", ["small_similar", "small_different", "large_different"])
@pytest.mark.parametrize("num_images", [200, 2000, 40_000])
@pytest.mark.parametrize("different", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("lead", "best"), [(-1.0, 3), (4.0, 1)])
def test_every_number_has_a_reason(scenario, num_images, different, lead, best):
    found = diagnosed(scenario, num_images, different=different, earlier_lead=lead, best_stage=best)
    advice = advise(found)
    reasons = reasons_of(advice)
    assert len(reasons) == len(advice.reasons)
    assert all(reason.why and reason.value for reason in advice.reasons)
    told_otherwise = {"reason", "method"}  # the scenario's, and the head's own line
    assert changed_fields(advice.recipe) - told_otherwise <= set(reasons)
    assert {"name", "head", "cut", "freeze_depth", "image_size", "augmentation"} <= set(reasons)


def test_mixup_of_many_images_has_its_reason():
    advice = advise(diagnosed("large_different", 40_000, different=1.0))
    assert advice.recipe.mixup_alpha == 0.2
    assert reasons_of(advice)["mixup_alpha"].value == "0.2"


def test_a_head_from_earlier_in_the_network():
    found = diagnosed(
        probe_error=0.0, earlier_lead=3.0, best_stage=1, accuracies=(0.4, 0.9, 0.8, 0.8)
    )
    advice = advise(found)
    assert advice.recipe.cut == 2
    assert advice.recipe.phases == (Phase("head", 2, "probe"),)
    reason = reasons_of(advice)["cut"]
    assert reason.value == "2 of 4 stages"
    assert "'stage_1' beats the last stage by +10.0 points" in reason.why
    # What was measured is held against what is only expected: of opening everything, 16 points.
    far = {"num_images": 2000, "different": 1.0, "earlier_lead": 3.0, "best_stage": 1}
    assert advise(diagnosed(accuracies=(0.4, 0.9, 0.8, 0.8), **far)).recipe.cut is None
    assert advise(diagnosed(accuracies=(0.4, 0.97, 0.8, 0.8), **far)).recipe.cut == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"earlier_lead": 0.9, "best_stage": 1}, "no earlier stage end is clearly better"),
        ({"earlier_lead": 3.0, "best_stage": 1, "takes_head": False}, "it cannot have a head"),
        (
            {"earlier_lead": 3.0, "best_stage": 1, "probe_error": 0.5},
            "the stages above it are trained",
        ),
    ],
)
def test_where_nothing_is_cut_off(changes, why):
    advice = advise(diagnosed(**{"probe_error": 0.0} | changes))
    assert advice.recipe.cut is None
    assert why in reasons_of(advice)["cut"].why


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (diagnosed(different=1.0), "with 4 times as many images: training everything"),
        (
            diagnosed(different=1.0, curve=curve_of(0.0, 0.2 * 200**0.5)),
            "with 4 times as many images: training everything",
        ),
        (diagnosed(), "ten times as many images would not change it"),
        (
            diagnosed(probe_error=0.06, curve=curve_of(0.0, 0.06 * 200**0.5)),
            "with 2 times as many images: training the head alone",
        ),
        (diagnosed(probe_error=0.0), "ten times as many images would not change it"),
    ],
)
def test_what_more_images_would_change(found, text):
    advice = advise(found)
    assert reasons_of(advice)["freeze_depth"].otherwise == text
    assert text in str(advice)


def test_alternatives_come_best_first():
    advice = advise(diagnosed(different=1.0))
    assert advice.summary.splitlines() == [
        "Few images, similar to the pretraining data (75% sure): the head and the upper half "
        "of the network are trained.",
        "A linear probe on the frozen network has accuracy 0.800 (cross-validated); training "
        "more is expected to add 6.0 points.",
    ]
    names = [name for name, _ in advice.alternatives]
    gains = [gain for _, gain in advice.alternatives]
    assert gains == sorted(gains, reverse=True)
    assert names == [
        "training the upper half",
        "training the last stage",
        "training the head alone",
        "training everything",
    ]
    assert gains[0] == pytest.approx(0.06)


def test_fields_that_are_decided_already():
    changes = {
        "seed": 7,
        "backbone": "ResNet50",
        "weights": "random",
        "image_size": (160, 160),
        "augmentation": "light",
        "batch_size": 8,
    }
    advice = advise(diagnosed(num_images=400), **changes)
    assert {name: getattr(advice.recipe, name) for name in changes} == changes
    assert advice.recipe.phases[-1].epochs == fine_tune_epochs(400, 8)
    reasons = reasons_of(advice)
    assert reasons["image_size"].value == "[160, 160]"
    assert reasons["image_size"].why == reasons["augmentation"].why == "as requested"
    assert reasons["epochs"].why != "as requested"
    with pytest.raises(ArgumentError, match="`augmentation` must be one of"):
        advise(diagnosed(), augmentation="lots")


def test_phases_that_are_decided_already():
    phases = (Phase("fine_tune", 1, epochs=2, learning_rate=0.01),)
    advice = advise(diagnosed(probe_error=0.0), phases=phases)
    assert advice.recipe.phases == phases
    reasons = reasons_of(advice)
    assert reasons["learning_rate"].value == "0.01"
    for name in ("freeze_depth", "epochs", "learning_rate"):
        assert reasons[name].why == "as requested"
        assert not reasons[name].otherwise


def test_the_size_is_the_one_that_was_diagnosed():
    assert advise(diagnosed()).recipe.image_size == (64, 96)
    assert advise(diagnosed(), image_size=None).recipe.image_size is None
    assert reasons_of(advise(diagnosed(), image_size=None))["image_size"].value == "[64, 96]"


def test_a_probe_at_chance_is_not_trusted():
    assert "trust" not in reasons_of(advise(diagnosed()))
    reason = reasons_of(advise(dataclasses.replace(diagnosed(), trustworthy=False)))["trust"]
    assert reason.value == "none"
    assert "no better than chance" in reason.why


def test_to_dict_is_plain():
    advice = advise(diagnosed(different=1.0))
    plain = advice.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert Recipe.from_dict(plain["recipe"]) == advice.recipe
    assert plain["alternatives"][0] == {"open": "training the upper half", "expected_gain": 0.06}
    assert set(plain["reasons"][0]) == {"name", "value", "why", "otherwise"}


def test_as_text():
    lines = str(advise(diagnosed(different=0.9))).splitlines()
    assert lines[0] == "name = small_similar: 75% sure."
    assert all(line.endswith(".") and " = " in line and ": " in line for line in lines)


@pytest.fixture
def tiny_model(tiny_backbone):
    keras.utils.set_random_seed(0)
    return build_transfer_model(tiny_backbone(), 3)


def test_the_recipe_trains(tiny_model, unsettled_data):
    found = diagnose(tiny_model, unsettled_data)
    numbers = dataclasses.replace(found.evidence, probe_error=0.5)
    advice = advise(dataclasses.replace(found, evidence=numbers, different=0.5), seed=3)
    assert [phase.freeze_depth for phase in advice.recipe.phases] == [4, 3]
    history = fine_tune(tiny_model, unsettled_data, recipe=advice.recipe, verbose=False)
    assert set(history.history["phase"]) == {"head", "fine_tune"}
    assert tiny_model.evaluate(unsettled_data.test.batches(32), verbose=0)[1] > 0.8


def test_a_cut_recipe_trains_and_exports(tiny_backbone, shapes_data, tmp_path):
    keras.utils.set_random_seed(0)
    backbone = tiny_backbone()
    found = diagnose(build_transfer_model(backbone, 3), shapes_data)
    numbers = dataclasses.replace(found.evidence, probe_error=0.0, earlier_lead=5.0)
    recipe = advise(dataclasses.replace(found, evidence=numbers, best_stage=1)).recipe
    assert recipe.cut == 2
    names = shapes_data.class_names
    model = build_transfer_model(backbone, 3, cut=recipe.cut, class_names=names)
    history = fine_tune(model, shapes_data, recipe=recipe, verbose=False)
    assert is_head_only(recipe, history)
    assert history.history["phase"] == ["head"]
    assert model.get_layer("head").kernel.shape == (12, 3)
    assert len(stages(model)) >= 1
    assert model.evaluate(shapes_data.test.batches(32), verbose=0)[1] > 0.8
    path = export_model(model, tmp_path / "served")
    assert (path / "saved_model.pb").is_file()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = next(shapes_data.test.images(32, 8).as_numpy_iterator())
    np.testing.assert_allclose(
        again.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-6
    )
