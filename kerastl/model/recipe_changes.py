"""Recipes with other numbers in some of their phases."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kerastl.model.recipes import HEAD_PHASE, Phase, Recipe


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return the recipe with so many epochs in each phase that trains by gradients."""
    return _with_phases(recipe, lambda phase: phase.method == "gradient", epochs=epochs)


def with_fine_tuning(
    recipe: Recipe, *, learning_rate: float | None = None, freeze_depth: int | None = None
) -> Recipe:
    """Return the recipe with these in the phases that open stages."""
    given = {"learning_rate": learning_rate, "freeze_depth": freeze_depth}
    given = {name: value for name, value in given.items() if value is not None}
    return _with_phases(recipe, lambda phase: phase.name != HEAD_PHASE, **given)


def _with_phases(recipe: Recipe, is_meant: Callable[[Phase], bool], **changes: Any) -> Recipe:
    changed = (
        dataclasses.replace(phase, **changes) if is_meant(phase) else phase
        for phase in recipe.phases
    )
    return dataclasses.replace(recipe, phases=tuple(changed))
