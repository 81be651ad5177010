import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastl.data.augment import AUGMENTATIONS
from kerastl.errors import ArgumentError
from kerastl.model.recipe_changes import with_epochs
from kerastl.model.recipes import (
    AUGMENTATION_NAMES,
    PUBLISHED,
    SCENARIOS,
    Phase,
    Recipe,
    fine_tune_epochs,
    make_recipe,
    scenario_by_count,
)

NAMES = SCENARIOS + PUBLISHED


def made(name, **changes):
    sizes = {"num_stages": 5, "num_images": 2000, "num_classes": 10}
    return make_recipe(name, **(sizes | changes))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_json(name):
    recipe = made(name, image_size=(96, 64), seed=7)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_stages", [1, 4, 12])
def test_depths_fit_any_backbone(name, num_stages):
    for phase in made(name, num_stages=num_stages).phases:
        assert 0 <= phase.freeze_depth <= num_stages


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("small_similar", [6]),
        ("large_similar", [6, 2]),
        ("small_different", [6, 3]),
        ("large_different", [6, 0]),
        ("guide", [6, 0]),
        ("fastai", [6, 0]),
        ("bit", [0]),
        ("scratch", [0]),
    ],
)
def test_what_is_frozen(name, depths):
    assert [phase.freeze_depth for phase in made(name, num_stages=6).phases] == depths


def test_the_backbone_learns_at_a_tenth_of_the_head():
    assert made("large_similar").phases[-1].backbone_rate == 0.1


def test_batch_normalization_trains_from_scratch_alone():
    for name in NAMES:
        assert any(phase.train_batch_norm for phase in made(name).phases) == (name == "scratch")


@pytest.mark.parametrize(
    ("num_images", "num_classes", "scenario"),
    [
        (999, 2, "small_similar"),
        (1000, 2, "large_similar"),
        (1000, 21, "small_similar"),
        (60000, 10, "large_similar"),
    ],
)
def test_scenario_by_count(num_images, num_classes, scenario):
    name, reason = scenario_by_count(num_images, num_classes)
    assert name == scenario
    assert f"{num_images:,} training images" in reason


@pytest.mark.parametrize(("num_images", "epochs"), [(10, 12), (1020, 12), (3200, 4), (10**6, 3)])
def test_fine_tune_epochs(num_images, epochs):
    assert fine_tune_epochs(num_images, 32) == epochs


def test_mixup_starts_with_many_images():
    assert made("large_different", num_images=19_999).mixup_alpha == 0
    assert made("large_different", num_images=20_000).mixup_alpha > 0


def test_with_epochs_leaves_probes_alone():
    assert [phase.epochs for phase in with_epochs(made("large_similar"), 2).phases] == [0, 2]


def test_names_of_augmentations_agree():
    assert set(AUGMENTATION_NAMES) == set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x"}, "needs phases"),
        ({"name": "x", "phases": []}, "at least one"),
        ({"name": "x", "phases": 3}, "must be a list"),
        ({"name": "x", "phases": [{}]}, "needs name, freeze_depth"),
        ({"name": 3, "phases": []}, "must be a string"),
        ({"nme": "x", "phases": []}, "no field 'nme'. Did you mean 'name'"),
        ([], "must be a JSON object"),
        ({"name": "x", "phases": [{"name": "../a", "freeze_depth": 0}]}, "made of letters"),
        (
            {"name": "x", "phases": [{"name": "a", "freeze_depth": 1, "method": "probe"}] * 2},
            "a different name",
        ),
    ],
)
def test_what_is_no_recipe(values, message):
    with pytest.raises(ArgumentError, match=message):
        Recipe.from_dict(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(field.name for field in dataclasses.fields(Recipe))), JSON)
def test_a_damaged_recipe_is_refused_or_read(field, value):
    values = made("large_similar").to_dict() | {field: value}
    try:
        recipe = Recipe.from_dict(values)
    except ArgumentError:
        return
    assert isinstance(recipe.phases, tuple)


@given(st.sampled_from(sorted(field.name for field in dataclasses.fields(Phase))), JSON)
def test_a_damaged_phase_is_refused_or_read(field, value):
    values = made("large_similar").to_dict()
    values["phases"][0][field] = value
    try:
        Recipe.from_dict(values)
    except ArgumentError:
        return
