"""Measures what a run has trained, or a trained model on other images."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import keras

from kerastl._steps import step
from kerastl._task import Task
from kerastl._versions import versions
from kerastl.data.load import ImageData
from kerastl.data.options import DataOptions
from kerastl.model.heads import task_of
from kerastl.model.recipes import Recipe
from kerastl.results.evaluate import collect_predictions, evaluate, predictions_of_head
from kerastl.results.measures import Measured
from kerastl.results.predictions import BasePredictions
from kerastl.results.run_files import Json, RunFiles, read_labelled_model
from kerastl.results.thresholds import settle_answers
from kerastl.runs.labelled import labelled_images
from kerastl.runs.run import Run
from kerastl.runs.telling import Tell
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


def measure_model(
    path: Path, data: str, on_bad: str, options: DataOptions, tell: Tell
) -> tuple[Task, dict[str, Measured]]:
    """Return the task of a run or a `.keras` file, and its measures on labelled images.

    The measures have the key `"test"`, or `"all"` for data without a test part.
    """
    model, class_names = read_labelled_model(path)
    task = task_of(model)
    options = Run(path, model=model).reading(options)
    part, images = labelled_images(data, class_names, task.name, on_bad, options)
    for warning in RunFiles(path).warn_of_seen(images.source):
        tell(f"Warning: {warning}")
    with step("Measuring"):
        return task, {part: evaluate(model, images)}


def metrics_of(trained: Trained, seconds: dict[str, float], started: float) -> Json:
    """Return the content of `metrics.json`."""
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
