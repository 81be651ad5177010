from types import SimpleNamespace

import numpy as np
import pytest

from kerastl.model.recipes import make_recipe
from kerastl.runs.plan import as_asked
from kerastl.runs.settings import RunSettings

NUMBERS = {"num_stages": 4, "num_images": 50, "num_classes": 2}


def test_numbers_that_a_fitted_head_has_no_use_for_are_told():
    asked = RunSettings("x", scenario="small_similar", learning_rate=0.1, freeze_depth=0)
    recipe, said = make_recipe("small_similar", **NUMBERS), []
    assert as_asked(recipe, asked, None, said.append) == recipe
    assert "so `learning_rate`, `freeze_depth` had no effect" in said[0]


def test_numbers_of_the_phases():
    asked = RunSettings("x", scenario="guide", learning_rate=0.1, freeze_depth=2, epochs=7)
    said = []
    head, last = as_asked(make_recipe("guide", **NUMBERS), asked, None, said.append).phases
    assert (last.learning_rate, last.freeze_depth, last.epochs) == (0.1, 2, 7)
    assert (head.learning_rate, head.freeze_depth, head.epochs) == (1e-3, 4, 7)
    assert not said


@pytest.mark.parametrize(("counts", "expected"), [((50, 5), 1.0), ((50, 6), 0.0), ((10, 0), 1.0)])
def test_automatic_balance(counts, expected):
    asked, said = RunSettings("x", scenario="guide", balance="auto"), []
    train = SimpleNamespace(class_counts=lambda: np.array(counts))
    recipe = make_recipe("guide", **NUMBERS)
    assert as_asked(recipe, asked, SimpleNamespace(train=train), said.append).balance == expected
    assert f"Balance {expected:g}" in said[0]
