"""The result of a search: its trials, the best recipe, and its corrected score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from kerastl._shown import Shown
from kerastl._task import DEFAULT_TASK, find_task
from kerastl._typed import typed
from kerastl.advice.rank import RankedBackbone
from kerastl.model.recipes import Recipe
from kerastl.training.trials import LEAST_SCORE, Row, Trial, describe_trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_BOOTSTRAPS = 1000


class Corrected(NamedTuple):
    """A score and its standard error, without the luck of having been picked."""

    score: float
    standard_error: float


@typed
@dataclass(frozen=True, repr=False)
class SearchResult(Shown):
    """The trials of a search and the training of the best one.

    Args:
        trials: the trials in the order in which they ended; failed trials with the reason.
        best: the completed trial with the best score.
        corrected: the score of the best trial, corrected for selection bias
            (`corrected_for_picking`).
        recipe: the recipe of the best trial for a full training with `fine_tune`.
        model: the model trained with this recipe; None with `train_best=False`.
        history: the history of this training; None with `train_best=False`.
        diagnosis: the result of `Diagnosis.to_dict`.
        depths: the candidate freeze depths, input first.
        seconds: the times of `diagnosis`, `trials` and `train`, including trials of an earlier
            process.
        task: the task.
        backbones: in a search over several backbones, all of them by their probes, the best first.
        others: the `SearchResult` of each of the other backbones that were searched.
    """

    trials: tuple[Trial, ...]
    best: Trial
    corrected: Corrected
    recipe: Recipe
    model: keras.Model | None
    history: keras.callbacks.History | None
    diagnosis: dict[str, Any]
    depths: tuple[int, ...]
    seconds: dict[str, float]
    task: str = DEFAULT_TASK
    backbones: tuple[RankedBackbone, ...] = ()
    others: tuple[Any, ...] = ()

    @property
    def _best_first(self) -> list[Trial]:
        return sorted(self.trials, key=lambda trial: -trial.rank)

    def table(self) -> list[Row]:
        """Return one row per trial as plain values, with the best first and failed trials last."""
        return [trial.to_dict() for trial in self._best_first]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `trials.json`."""
        found = {one.recipe.backbone: one.best.to_dict() for one in (self, *self.others)}
        return {
            "task": self.task,
            "best": self.best.to_dict(),
            "corrected": self.corrected._asdict(),
            "recipe": self.recipe.to_dict(),
            "freeze_depths": list(self.depths),
            "trials": self.table(),
            "profile": self.diagnosis["profile"],
            "seconds": self.seconds,
            "backbones": [
                {"name": one.name, "probe": one.probe_score, "best": found.get(one.name)}
                for one in self.backbones
            ],
        }

    def __str__(self) -> str:
        return "\n".join([*map(line_of, self._best_first), self.summary()])

    def _in_short(self) -> str:
        return f"{len(self.trials)} trials, best {self.best.score:.3f}"

    def summary(self) -> str:
        """Return the best trial and its corrected score in a sentence."""
        title, best = find_task(self.task).score.title, self.best
        where = f" of {self.recipe.backbone}, and of all backbones" if self.backbones else ""
        return (
            f"Best of {len(self.trials)} trials{where}: {describe_trial(best)}, validation {title} "
            f"{best.score:.3f} ± {best.standard_error:.3f}; corrected for selection bias "
            f"{self.corrected.score:.3f} ± {self.corrected.standard_error:.3f}."
        )

    def plot(self) -> "Figure":
        """Return a figure: score against freeze depth, and the probe profile."""
        from kerastl.training.search_plot import plot_search

        return plot_search(self)


def line_of(trial: Trial) -> str:
    """Return a trial and its score, or the reason of its failure, in one line."""
    if not trial.is_completed:
        reason = trial.reason.splitlines()[0] if trial.reason else ""
        return f"{describe_trial(trial)}: failed, {reason} ({trial.seconds:.1f} s)"
    return (
        f"{describe_trial(trial)}: score {trial.score:.3f} ± {trial.standard_error:.3f}, "
        f"loss {trial.loss:.3f} ({trial.seconds:.1f} s)"
    )


COLUMNS = ("freeze depth", "rate", "epochs", "score", "loss", "seconds", "status")


def cells_of(trial: Mapping[str, Any]) -> list[str]:
    """Return what a table of trials, as `to_dict` has them, shows in `COLUMNS`."""
    depth, rate, done = trial["freeze_depth"], trial["learning_rate"], trial["score"] is not None
    return [
        str(depth) if rate else f"{depth} (head)",
        f"{rate:.2g}" if rate else "-",
        str(trial["epochs"] or "-"),
        f"{trial['score']:.3f} ± {trial['standard_error']:.3f}" if done else "-",
        f"{trial['loss']:.3f}" if done else "-",
        f"{trial['seconds']:.1f}",
        trial["status"] if done else trial["reason"].splitlines()[0][:60],
    ]


def corrected_for_picking(trials: Sequence[Trial], seed: int = 0) -> Corrected:
    """Return the score to expect of the best of several trials, on images that did not pick it.

    The best score of many is too high, the more so the more trials and the fewer images. As in
    bootstrap bias corrected cross-validation (Tsamardinos, Greasidou and Borboudakis, 2018,
    https://arxiv.org/abs/1708.07180), images are drawn with replacement a thousand times; each time
    the trial that is best on them is scored on those that were not drawn. The images are those of
    one hold-out set, the same for all trials.

    Args:
        trials: Completed ones, with `image_scores` of the same images.
        seed: Of the draws, and of ties.

    Returns:
        The mean of those scores, and their standard deviation over the draws.
    """
    each = np.stack([t.image_scores for t in trials if t.image_scores is not None]).astype(float)
    num_images = each.shape[1]
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(NUM_BOOTSTRAPS):
        drawn = rng.integers(0, num_images, num_images)
        left = np.ones(num_images, bool)
        left[drawn] = False
        if left.any():
            sums = each[:, drawn].sum(1) + rng.random(len(each)) * LEAST_SCORE  # ties by lot
            scores.append(each[sums.argmax()][left].mean())
    if not scores:
        scores = [each.mean(1).max()]
    return Corrected(float(np.mean(scores)), float(np.std(scores)))
