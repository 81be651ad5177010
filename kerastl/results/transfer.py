"""Compares a pretrained backbone with other ways to use the same training budget."""

import dataclasses
import time
from itertools import combinations
from typing import NamedTuple

import keras
import numpy as np

from kerastl._task import check_supports, find_task
from kerastl.data.load import ImageData
from kerastl.errors import DataError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import stages
from kerastl.model.recipe_changes import with_epochs
from kerastl.model.recipes import Phase, Recipe, fine_tune_epochs
from kerastl.results.evaluate import collect_predictions
from kerastl.results.measures import Measured, share_interval
from kerastl.results.run_files import Json
from kerastl.training.fine_tune import fine_tune, resolve_recipe

HEAD, FINE_TUNED, SCRATCH = "head_only", "fine_tuned", "from_scratch"
_Z = 1.959964  # 97.5 % of a normal distribution lie below


# What the arm from scratch shares with the recipe.
_KEPT = ("backbone", "image_size", "batch_size", "augmentation", "seed", "patience")


class _Arm(NamedTuple):
    name: str
    scores: np.ndarray  # of each image, as `Task.image_scores` has them
    epochs: int
    seconds: float


def compare_transfer(
    data: ImageData, recipe: Recipe, *, scratch: bool = False, verbose: bool = True
) -> Json:
    """Compare the recipe with training the head only and with random weights.

    All use the same budget: except for the head, which is fitted in closed form, each trains as
    many epochs by gradient descent as the recipe (or as its scenario, if the recipe has none). All
    are measured on the same test images.

    Args:
        data: the result of `load_data`, with test images.
        recipe: a complete recipe, as in `recipe.json`.
        scratch: whether to train from random weights too, which takes longest.
        verbose: show progress on stderr.

    Returns:
        A dict with `num_images`; `arms`, a list of dicts with `name`, `score` (the accuracy for
        classes, the mean average precision for several labels, R² for regression), its 95 %
        `interval`, `epochs` and `seconds`; `differences`, a list of dicts with `first`, `second`,
        `difference` of the scores and its paired 95 % `interval`; and `warnings`, a list of
        sentences if the
        pretrained weights are not better.

    Raises:
        DataError: there are no test images.

    Example:
        >>> found = kerastl.compare_transfer(data, advice.recipe, scratch=True)
        >>> found["warnings"]
        []
    """
    check_supports(data.task, "probe")
    if data.test is None or not len(data.test):
        raise DataError(
            "The comparison needs test images. Received none. Pass `test` to `load_data`."
        )
    budget = gradient_epochs(recipe)
    epochs = budget or fine_tune_epochs(len(data.train), recipe.batch_size)
    names = [HEAD] + [FINE_TUNED] * bool(budget) + [SCRATCH] * scratch
    return summary([_trained(data, recipe, name, epochs, verbose) for name in names])


def summary(arms: list[_Arm]) -> Json:
    """Return what `compare_transfer` returns, of arms with the scores of their answers."""
    differences = [
        {"first": first.name, "second": second.name, **difference_of(first.scores, second.scores)}
        for first, second in combinations(arms, 2)
    ]
    rows = [
        {"name": arm.name, **score_of(arm.scores), "epochs": arm.epochs, "seconds": arm.seconds}
        for arm in arms
    ]
    return {
        "num_images": len(arms[0].scores),
        "arms": rows,
        "differences": differences,
        "warnings": _warnings(differences),
    }


def score_of(scores: np.ndarray) -> Measured:
    """Return `score` and its 95 % `interval`, by the score of each image."""
    mean = float(scores.mean())
    if scores.dtype == bool:
        return {"score": mean, "interval": share_interval(int(scores.sum()), len(scores))}
    return {"score": mean, "interval": _interval_of_mean(scores)}


def difference_of(first: np.ndarray, second: np.ndarray) -> Measured:
    """Return `difference` and its paired 95 % `interval` of two scores on the same images."""
    difference = float(first.mean() - second.mean())
    return {"difference": difference, "interval": paired_interval(first, second)}


def paired_interval(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Return the 95 % interval of the difference of two scores on the same images.

    Of right and wrong answers Wald's, with half an image added to each of the four cells (Agresti
    and Min, 2005, https://doi.org/10.1002/sim.1781): it holds what it says where few answers
    differ, too. Of other scores that of the mean of their differences.

    Args:
        first: bools `(num_images,)`, whether each answer is right, or the score of each image.
        second: the same of the other.
    """
    if first.dtype != bool:
        return _interval_of_mean(first - second)
    num_images = len(first) + 2
    better = float((first & ~second).sum()) + 0.5
    worse = float((~first & second).sum()) + 0.5
    centre = (better - worse) / num_images
    variance = (better + worse) / num_images - centre**2
    half = _Z * float(np.sqrt(variance / num_images))
    return [max(-1.0, centre - half), min(1.0, centre + half)]


def _interval_of_mean(values: np.ndarray) -> list[float]:
    half = _Z * float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 1.0
    return [float(values.mean() - half), float(values.mean() + half)]


def _warnings(differences: list[Json]) -> list[str]:
    """Say so when nothing pretrained is better than training from scratch, beyond chance."""
    against = [row for row in differences if row["second"] == SCRATCH]
    if not against or any(row["interval"][0] > 0 for row in against):
        return []
    best = max(against, key=lambda row: row["difference"])
    low, high = (100 * end for end in best["interval"])
    return [
        "With this budget, the pretrained weights are not better than random weights: "
        f"{best['first'].replace('_', ' ')} minus from scratch is "
        f"{100 * best['difference']:+.1f} points ({low:+.1f} to {high:+.1f}). Look for a "
        "backbone that was pretrained on more similar images (`kerastl rank`), check the "
        "preprocessing, or train from scratch."
    ]


def gradient_epochs(recipe: Recipe) -> int:
    """Return how many epochs a recipe trains by gradients, over all phases."""
    return sum(phase.epochs for phase in recipe.phases if phase.method == "gradient")


def _trained(data: ImageData, recipe: Recipe, name: str, epochs: int, verbose: bool) -> _Arm:
    """Build, train and measure one arm; nothing but its answers is kept."""
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    weights, cut = ("random", None) if name == SCRATCH else (recipe.weights, recipe.cut)
    model = build_transfer_model(
        recipe.backbone, data.num_classes, weights=weights, image_size=recipe.image_size, cut=cut,
        channels=data.train.channels, task=data.task,
        head="linear" if name == SCRATCH else recipe.head,
    )  # fmt: skip
    if name == HEAD:
        head = Phase("head", freeze_depth=len(stages(model)), method="probe")
        recipe = dataclasses.replace(recipe, phases=(head,))
    elif name == SCRATCH:
        kept = {field: getattr(recipe, field) for field in _KEPT}
        scratch = resolve_recipe("scratch", model, data, weights=weights, **kept)
        recipe = with_epochs(scratch, epochs)
    fine_tune(model, data, recipe=recipe, verbose=verbose)
    answers = collect_predictions(model, data.test)
    scores = find_task(data.task).image_scores(answers.labels, answers.outputs)
    seconds = time.perf_counter() - started
    return _Arm(name, scores, gradient_epochs(recipe), seconds)
