"""Chooses the thresholds of a multi-label model on validation images, and stores them in it."""

import json

import keras

from kerastl._checks import check_float
from kerastl._task import check_supports
from kerastl.data.split import Split
from kerastl.model.heads import SETTINGS, task_of
from kerastl.model.kept_words import remember
from kerastl.results.evaluate import collect_predictions
from kerastl.results.predictions import BasePredictions


def choose_thresholds(
    model: keras.Model, validation: Split | BasePredictions, *, cost: float | None = None
) -> list[float]:
    """Choose the threshold of each label, and store the thresholds in the model.

    `predict`, `evaluate`, exports and servers use the thresholds from then on; the probabilities do
    not change. A label keeps 0.5 if fewer than ten validation images have it, or fewer than ten do
    not. `fine_tune` removes the thresholds; after `fit`, choose them again. `kerastl.train` chooses
    thresholds that maximise F1.

    Args:
        model: a trained model of `build_transfer_model` with `task="multi_label"`.
        validation: images that the model was not trained on: a split (`data.validation`), or their
            `collect_predictions`. Do not use the test images, because their measures would then be
            too good.
        cost: cost of a missed label divided by the cost of a wrong label, above 0: the threshold is
            1 / (1 + cost), which is optimal for calibrated probabilities (Elkan 2001). Default: for
            each label the threshold with the highest F1 (https://arxiv.org/abs/1402.1892).

    Returns:
        The thresholds, one per label.

    Raises:
        ArgumentError: the model is not a multi-label model, or `cost` is invalid.
        DataError: there are no images.

    Example:
        >>> kerastl.choose_thresholds(model, data.validation)
        [0.31, 0.5, 0.22]
    """
    check_supports(task_of(model).name, "thresholds")
    if cost is not None:
        check_float("cost", cost, 0.0, exclusive=True)
    if not isinstance(validation, BasePredictions):
        validation = collect_predictions(model, validation)
    settle_answers(model, validation, cost)
    found: list[float] = json.loads(
        task_of(model).choose_settings(validation.labels, validation.outputs, cost)
    )
    return found


def settle_answers(
    model: keras.Model, validation: BasePredictions, cost: float | None = None
) -> BasePredictions:
    """Keep in a model how its outputs become answers, where the task chooses that.

    Returns:
        What the model answers about the validation images from now on.
    """
    settings = task_of(model).choose_settings(validation.labels, validation.outputs, cost)
    if not settings:
        return validation
    remember(model, SETTINGS, settings)
    found: BasePredictions = task_of(model).predictions(
        validation.labels, validation.outputs, validation.class_names, validation.paths
    )
    return found
