"""At which probability a model answers a label, chosen by validation images and kept in it."""

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
    """Choose at which probability each label is answered, and keep that in the model.

    `predict`, `evaluate`, exports and what they are served by answer so from then on; the
    probabilities stay what they are. A label that fewer than ten validation images have, or lack,
    keeps one half. `fine_tune` forgets them; after `fit` choose them again. `kerastl.train` does
    this by F1.

    Args:
        model: of `build_transfer_model` with `task="multi_label"`, trained.
        validation: images that it was not trained on: a split (`data.validation`), or their
            `collect_predictions`. Test images would no longer tell how good the answers are.
        cost: how many times a missed label costs what a wrong one does, above 0: the threshold is
            1 / (1 + cost), where probabilities are right (Elkan 2001). Default: of each label that
            of the highest F1 on the images (https://arxiv.org/abs/1402.1892).

    Returns:
        The thresholds, one a label.

    Raises:
        ArgumentError: the model is not one of several labels, or `cost` cannot be meant.
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
