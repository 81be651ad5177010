"""Chooses the smallest image size that is about as accurate as the best."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastl._task import DEFAULT_TASK, find_task
from kerastl.advice.scores import one_standard_error_stage
from kerastl.advice.task_probe import probe_scores
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.frozen.activations import extract_embeddings
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runtime import FrozenRuntime
from kerastl.model.build import build_transfer_model

Size = int | tuple[int, int]


@dataclass(frozen=True)
class SizeProbe:
    """How well a linear probe does on the embeddings of images of one size.

    Args:
        image_size: Height and width in pixels.
        score: Of the task, cross-validated: of classes the accuracy.
        standard_error: Of the difference to the best size, image by image.
        work: Pixels, as a multiple of those of the smallest size; multiply-adds grow with them.
        chosen: Whether it is the smallest within one standard error of the best.
    """

    image_size: tuple[int, int]
    score: float
    standard_error: float
    work: float
    chosen: bool


def probe_sizes(
    backbone: Any,
    num_classes: int,
    sample: Split,
    image_sizes: Sequence[Size],
    *,
    task: str = DEFAULT_TASK,
    weights: Any = "imagenet",
    seed: int = 0,
    runtime: FrozenRuntime | None = None,
) -> tuple[SizeProbe, ...]:
    """Measure which size serves, by one pass over the images at each.

    The smallest size within one standard error of the best is chosen: the rule of Breiman and
    others (1984) for the simplest of equals, with the errors of the same images at each size.

    Args:
        backbone: The name of a backbone, an earlier run or a `.keras` file.
        num_classes: Of the sample.
        sample: Labelled images.
        image_sizes: At least two, in pixels.
        task: Of the sample.
        weights: As `build_transfer_model` takes them.
        seed: Of the folds.
        runtime: as `extract_embeddings` takes it.

    Returns:
        One each, the smallest first.

    Raises:
        ArgumentError: They are not two sizes, or the backbone does not take one of them.
    """
    if not isinstance(backbone, (str, os.PathLike)):
        raise ArgumentError(
            "`image_sizes` needs the name of a backbone, a run or a .keras file, because "
            f"kerastl builds it at each size. Received: {type(backbone).__name__}. A model that "
            "is already built has a fixed size."
        )
    models = {
        image_size_of(model): model
        for model in (
            build_transfer_model(
                backbone,
                num_classes,
                weights=weights,
                image_size=size,
                channels=sample.channels,
                task=task,
            )
            for size in image_sizes
        )
    }
    if len(models) < 2:
        raise ArgumentError(
            "`image_sizes` must contain at least two sizes, such as (160, 224). Received: "
            f"{tuple(image_sizes)!r}"
        )
    sizes = sorted(models, key=lambda size: -size[0] * size[1])
    found = [extract_embeddings(models[size], sample, runtime=runtime) for size in sizes]
    scores = [probe_scores(find_task(task), x, y, seed=seed) for x, y in found]
    choice = one_standard_error_stage(np.stack(scores))
    least = sizes[-1][0] * sizes[-1][1]
    probes = [
        SizeProbe(size, float(score), float(error), size[0] * size[1] / least, i == choice.stage)
        for i, (size, score, error) in enumerate(
            zip(sizes, choice.scores, choice.standard_errors, strict=True)
        )
    ]
    return tuple(reversed(probes))


def check_mutually_exclusive(image_size: Any, image_sizes: Any) -> None:
    """Raise an error if both a size and a choice of sizes are given."""
    if image_size is not None:
        raise ArgumentError(
            f"Pass `image_size` or `image_sizes`, not both. Received: image_size={image_size!r}, "
            f"image_sizes={image_sizes!r}"
        )


def chosen_size(probes: Sequence[SizeProbe]) -> SizeProbe:
    """Return the one that is chosen."""
    return next(probe for probe in probes if probe.chosen)


def size_text(image_size: Sequence[int]) -> str:
    """Return a size as text: one number if both sides are equal."""
    height, width = image_size
    return str(height) if height == width else f"{height} x {width}"


def why_chosen(probes: Sequence[SizeProbe]) -> str:
    """Return why that size, with the numbers of all."""
    rows = ", ".join(f"{size_text(p.image_size)}: {p.score:.3f}" for p in probes)
    best = max(probes, key=lambda probe: probe.score)
    chosen = chosen_size(probes)
    if chosen.score >= best.score:
        return f"probe at {rows}; no smaller size is within one standard error"
    lost = 100 * (best.score - chosen.score)
    return (
        f"probe at {rows}; {size_text(best.image_size)} would gain {lost:.1f} points (± "
        f"{100 * chosen.standard_error:.1f}) for {best.work / chosen.work:.1f} times the work"
    )
