import dataclasses

import pytest

from kerastl.model.recipes import PUBLISHED, SCENARIOS, make_recipe
from kerastl.model.sources import SOURCES

NO_SOURCE_NEEDED = {"name", "reason", "backbone", "weights", "phases", "optimizer", "schedule"}


@pytest.mark.parametrize("name", SCENARIOS + PUBLISHED)
def test_every_number_has_a_source(name):
    recipe = make_recipe(name, num_stages=5, num_images=2000, num_classes=10)
    known = SOURCES["all"].keys() | SOURCES[name].keys()
    for record in (recipe, *recipe.phases):
        names = {field.name for field in dataclasses.fields(record)} - NO_SOURCE_NEEDED
        assert names <= known | {"freeze_depth", "method"}
    assert {"freeze_depth", "method"} <= SOURCES[name].keys()
    if any(phase.method == "gradient" for phase in recipe.phases):
        assert {"learning_rate", "epochs", "layer_decay"} <= SOURCES[name].keys()
