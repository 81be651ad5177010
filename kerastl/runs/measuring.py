"""Measures what a run has trained."""

import time
from dataclasses import asdict
from typing import NamedTuple

import keras

from kerastl._versions import versions
from kerastl.data.load import ImageData
from kerastl.model.recipes import Recipe
from kerastl.results.evaluate import collect_predictions, predictions_of_head
from kerastl.results.predictions import BasePredictions
from kerastl.results.run_files import Json
from kerastl.results.thresholds import settle_answers
from kerastl.training.fine_tune import is_head_only, refit_head


class Trained(NamedTuple):
    """A model that was trained and measured, and what there is to write about it."""

    model: keras.Model
    recipe: Recipe
    history: keras.callbacks.History
    test: BasePredictions
    validation: BasePredictions | None
    """Predictions of before any head saw the validation images."""


def measure_parts(
    model: keras.Model, images: ImageData, recipe: Recipe, history: keras.callbacks.History
) -> Trained:
    """Predict validation and test images; in between, fit a head alone to both other parts.

    By the validation images the thresholds of several labels are chosen first.
    """
    head_only = is_head_only(recipe, history)
    measure = predictions_of_head if head_only else collect_predictions
    validation = None
    if images.validation:
        validation = settle_answers(model, measure(model, images.validation))
    if images.validation and head_only:
        refit_head(model, images, recipe)
    assert images.test is not None  # noqa: S101  the run was refused without test images
    test = measure(model, images.test)
    return Trained(model, recipe, history, test, validation)


def metrics_of(trained: Trained, seconds: dict[str, float], started: float) -> Json:
    """Return what `metrics.json` holds."""
    store = trained.history.store
    return {
        "test": trained.test.measures(),
        "validation": trained.validation.measures() if trained.validation else None,
        "decisions": trained.history.decisions,
        "timing": {
            "phases": {name: round(value, 3) for name, value in seconds.items()},
            "store": {**asdict(store), "from_store": store.from_store},
            "total_seconds": time.perf_counter() - started,
        },
        "recipe": trained.recipe.to_dict(),
        "versions": versions(),
    }
