"""The earlier training of a backbone, step by step, and the gain of each step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerastl._hashing import sha256_of_file
from kerastl._task import find_task
from kerastl.backbones.saved_model_backbone import is_saved_model, saved_file
from kerastl.errors import DataError
from kerastl.results.run_files import Json, RunFiles, read_object, recipe_file
from kerastl.results.run_shapes import RecipeFile
from kerastl.results.transfer import difference_of, score_of


def lineage_of(backbone: str) -> list[Json]:
    """Return the trainings that a backbone has gone through, the oldest first.

    A dict a training that kerastl knows of, with `model` (the path) and its `sha256`; of a run also
    `recipe`, `data` (as `recipe.json` keeps them), `num_classes`, and `score` on its own test
    images with the name of the `measure`. Nothing for a published network.
    """
    if not is_saved_model(backbone):
        return []
    file = saved_file(backbone)
    last: Json = {"model": backbone, "sha256": sha256_of_file(file)}
    run = RunFiles(file.parent)
    if file.name != run.MODEL or not run.path(run.RECIPE).exists():
        return [last]
    score = find_task(run.task).score
    last |= {
        "recipe": run.recipe,
        "data": run.source,
        "num_classes": len(run.class_names) if run.path(run.LABELS).is_file() else None,
        "measure": score.title,
        "score": ((run.metrics or {}).get("test") or {}).get(score.key),
    }
    return [*run.lineage, last]


def backbone_changed_warning(recipe: str | Path, backbone: str) -> str | None:
    """Return a sentence if a run's backbone was trained again since its recipe was written."""
    lineage = (read_object(recipe_file(recipe), shape=RecipeFile) or {}).get("lineage") or []
    if not lineage or lineage[-1].get("model") != backbone:
        return None
    if lineage[-1].get("sha256") == sha256_of_file(saved_file(backbone)):
        return None
    return (
        f"{backbone} has been trained again since {recipe} was written, so this run will "
        "have a different result."
    )


@dataclass(frozen=True)
class ChainArm:
    """One way to train for the goal: from the start, or after the first steps of a chain."""

    name: str  # `"straight"`, or the steps before
    run: str  # its directory
    num_steps: int  # of the chain that come before
    epochs: int  # that trained by gradients, over all phases
    most_epochs: int  # that the recipe allows; patience ends a phase sooner
    num_trained: int  # images that all steps may train on by gradients, each in each epoch
    seconds: float  # that it took, without the steps before


def compare_arms(arms: list[ChainArm], step_names: list[str]) -> Json:
    """Return the gain of each step of a chain, on the same test images.

    Args:
        arms: with 0, 1, ... steps before the goal, the last with all of them.
        step_names: of the steps before the goal.

    Returns:
        A dict with `num_images`; `arms`, a dict each with its fields, `score` and its 95 %
        `interval`; `brought`, a dict a step with `step`, `difference` of the scores with and
        without it and its paired 95 % `interval`; `paid`, the same of the whole chain against going
        straight, with a `verdict`.

    Raises:
        DataError: an arm kept no answers, or of other images.
    """
    answers = [_scores(Path(arm.run)) for arm in arms]
    images = answers[0][0]
    for arm, (others, _) in zip(arms, answers, strict=True):
        if others != images:
            raise DataError(
                f"{arm.run} was measured on different test images than {arms[0].run}. Run "
                "the chain again in another `--output`."
            )
    scores = [each for _, each in answers]
    return {
        "num_images": len(images),
        "arms": [{**vars(arm), **score_of(each)} for arm, each in zip(arms, scores, strict=True)],
        "brought": [
            {"step": name, **difference_of(scores[place + 1], scores[place])}
            for place, name in enumerate(step_names)
        ],
        "paid": _verdict(difference_of(scores[-1], scores[0])),
    }


STEP_COLUMNS = ("step", "data", "recipe", "test score", "seconds")
ARM_COLUMNS = ("trained", "score", "95 %", "epochs", "of at most")


def step_cells(step: Mapping[str, Any]) -> list[str]:
    """Return what a table of the steps of a chain shows in `STEP_COLUMNS`."""
    score, seconds = f"{step['measure']} {step['score']:.3f}", f"{step['seconds']:.0f}"
    return [step["name"], step["data"], step["recipe"], score, seconds]


def arm_cells(arm: Mapping[str, Any]) -> list[str]:
    """Return what a table of the arms of a chain, as `compare_arms` has them, shows."""
    interval = "{:.3f}-{:.3f}".format(*arm["interval"])
    epochs = [str(arm["epochs"]), str(arm["most_epochs"])]
    return [arm["name"], f"{arm['score']:.3f}", interval, *epochs]


def _scores(run: Path) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the test images of a run with their labels, and the score of each."""
    files = RunFiles(run)
    rows = files.prediction_rows()
    try:
        images = [(row["path"] or row["index"], row["label"]) for row in rows]
        return images, find_task(files.task).scores_of_rows(rows)
    except KeyError as error:
        raise DataError(
            f"The predictions of {run} have no column {error}. Run `kerastl report {run} "
            "--measure` to write them again."
        ) from error


def _verdict(found: Json) -> Json:
    low, high = found["interval"]
    if low > 0:
        verdict = "Training on the intermediate images helped."
    elif high < 0:
        verdict = "Training on the intermediate images did harm: train on the goal only."
    else:
        verdict = (
            "There are too few test images to decide whether training on the intermediate "
            "images helped."
            if high - low > 0.02
            else "Training on the intermediate images made no relevant difference."
        )
    return {**found, "verdict": verdict}


def sentences_of(found: Mapping[str, Any]) -> list[str]:
    """Return sentences about the gain of each step of a compared chain."""

    def points(difference: Json) -> str:
        low, high = (100 * end for end in difference["interval"])
        return f"{100 * difference['difference']:+.1f} points ({low:+.1f} to {high:+.1f})."

    paid = found["paid"]
    return [
        *(f"{brought['step']} brought {points(brought)}" for brought in found["brought"]),
        f"The chain compared with training on the goal only: {points(paid)} {paid['verdict']}",
    ]
