"""A search over several backbones: a probe ranks them, and the best are searched one by one."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from kerastl._steps import say
from kerastl.advice.rank import RankedBackbone, rank_backbones
from kerastl.data.load import ImageData
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.training.fine_tune import fine_tune
from kerastl.training.search_result import SearchResult, corrected_for_picking
from kerastl.training.workers import role_of_this_process

MOST_SEARCHED = 3
LEAST_ERRORS = 2.0  # standard errors below the best probe, from which a backbone is not searched


def search_backbones(
    search_one: Callable[..., SearchResult],
    data: ImageData,
    backbones: Sequence[str],
    *,
    weights: str | os.PathLike[str],
    max_trials: int,
    budget: float | None,
    directory: Path | None,
    train_best: bool,
    **how: Any,
) -> SearchResult:
    """Return the best of the searches over each backbone that a probe leaves.

    Each backbone runs once over the training images for its probe. Those within two standard errors
    of the best probe, at most three, share the trials and the time; all trials are scored on the
    same validation images.

    Args:
        search_one: `search`, for one backbone.
        data: as `search` takes it, and so all others.
        backbones: names or paths, two or more.
        weights: of all of them.
        max_trials: in all.
        budget: in all.
        directory: keeps the trials of each backbone in a folder `backbone_N`.
        train_best: whether to train the best recipe in full.
        **how: the other arguments of `search`.
    """
    if role_of_this_process().name:
        raise ArgumentError(
            "Several processes share the trials of one backbone. Give one `backbone`, or search in "
            "one process."
        )
    started = time.perf_counter()
    ranked = rank_backbones(
        data, list(backbones), weights=weights, image_size=how["image_size"], seed=how["seed"],
        store=how["store"], engine=how["engine"],
    )  # fmt: skip
    kept = worth_searching(ranked)
    if how["verbose"]:
        for each in ranked:
            fate = "searched" if each in kept else "left out"
            say(f"{each.name}: probe {each.probe_score:.3f}, {fate}")
    folders = {name: f"backbone_{place}" for place, name in enumerate(backbones)}
    found: list[SearchResult] = []
    for place, each in enumerate(kept):
        left = None if budget is None else budget - (time.perf_counter() - started)
        if left is not None and found and left <= 0:
            break
        found.append(
            search_one(
                data, each.name, weights=weights, train_best=False,
                max_trials=max(1, (max_trials - _num_trials(found)) // (len(kept) - place)),
                budget=None if left is None else max(left, 0.1) / (len(kept) - place),
                directory=None if directory is None else directory / folders[each.name], **how,
            )
        )  # fmt: skip
    best = max(found, key=lambda one: one.best.rank)
    trials = [trial for one in found for trial in one.trials if trial.is_completed]
    names = [one.recipe.backbone for one in found]
    reason = f"{best.recipe.reason} {best.recipe.backbone} was the best of {', '.join(names)}."
    best = dataclasses.replace(
        best,
        recipe=dataclasses.replace(best.recipe, reason=reason),
        corrected=corrected_for_picking(trials, how["seed"]),
        backbones=tuple(ranked),
        others=tuple(one for one in found if one is not best),
    )
    return _trained(best, data, how) if train_best else best


def worth_searching(ranked: Sequence[RankedBackbone]) -> list[RankedBackbone]:
    """Return the backbones whose probe is not clearly below the best, at most three."""
    best = max(each.probe_score for each in ranked)
    near = [e for e in ranked if best - e.probe_score <= LEAST_ERRORS * e.standard_error]
    return near[:MOST_SEARCHED]


def _num_trials(found: Sequence[SearchResult]) -> int:
    return sum(len(one.trials) for one in found)


def _trained(best: SearchResult, data: ImageData, how: dict[str, Any]) -> SearchResult:
    """Return the result with a model that is trained by its recipe."""
    recipe, started = best.recipe, time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    model = build_transfer_model(
        recipe.backbone, data.num_classes, weights=recipe.weights, image_size=recipe.image_size,
        head=recipe.head, class_names=data.class_names, strategy=how["strategy"],
        channels=data.train.channels, task=data.task,
    )  # fmt: skip
    history = fine_tune(
        model, data, recipe=recipe, verbose=how["verbose"], store=how["store"],
        engine=how["engine"],
    )  # fmt: skip
    seconds = {**best.seconds, "train": time.perf_counter() - started}
    return dataclasses.replace(best, model=model, history=history, seconds=seconds)
