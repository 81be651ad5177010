"""Chooses the next trial: successive halving, and KerasTuner's oracles on the same space."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras_tuner

from kerastl._checks import check_choice, check_float, check_int
from kerastl._typed import typed
from kerastl.advice.evidence import UNSURE
from kerastl.errors import ArgumentError
from kerastl.training.callbacks import least_worth_keeping
from kerastl.training.trials import Setting

TUNERS = ("halving", "random", "hyperband", "bayesian")
DEPTH, RATE, EPOCHS = "freeze_depth", "learning_rate", "tuner/epochs"  # the last as in Hyperband
OBJECTIVE = keras_tuner.Objective("score", "max")
# The trial of a worker that died is given to another one once; failed ones are no reason to stop.
FAILURES = {"max_retries_per_trial": 1, "max_consecutive_failed_trials": None}
FACTOR = 3  # of Hyperband (https://arxiv.org/abs/1603.06560), as in KerasTuner


@typed
@dataclass(frozen=True)
class SearchSpace:
    """The search space of `kerastl.search`.

    Args:
        freeze_depths: candidates, from 0 to the number of stages (head only). Default: at most
            four, chosen by the probe profile.
        learning_rates: highest rates of the head, above 0. Default: 1e-4, 3e-4 and 1e-3, around the
            3e-4 of the recipes. `"halving"` tries each; other tuners sample between the minimum and
            the maximum, on a log scale.
        min_epochs: epochs of a trial in the first rung of halving, at least 1. Default 1.
        max_epochs: epochs of the longest trials, and of all trials of `"random"` and `"bayesian"`.
            Default 3.
    """

    freeze_depths: tuple[int, ...] | None = None
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    min_epochs: int = 1
    max_epochs: int = 3

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise ArgumentError("`learning_rates` must contain at least one rate. Received: ()")
        for rate in self.learning_rates:
            check_float("learning_rates", rate, 0.0, exclusive=True)
        check_int("min_epochs", self.min_epochs, 1)
        check_int("max_epochs", self.max_epochs, self.min_epochs)

    def checked_depths(self, num_stages: int) -> tuple[int, ...] | None:
        """Return the checked depths, input first, or None."""
        if self.freeze_depths is None:
            return None
        if not self.freeze_depths:
            raise ArgumentError("`freeze_depths` must contain at least one depth. Received: ()")
        advice = f"Use {num_stages} to train the head only."
        depths = {check_int("freeze_depths", d, 0, num_stages, advice) for d in self.freeze_depths}
        return tuple(sorted(depths))


def check_search(tuner: str, max_trials: int, budget: float | None) -> None:
    """Raise an `ArgumentError` unless there is such a search."""
    check_choice("tuner", tuner, TUNERS)
    check_int("max_trials", max_trials, 1)
    if budget is not None:
        check_float("budget", budget, 0.0, exclusive=True)


def candidate_depths(num_stages: int, best_stage: int, different: float) -> tuple[int, ...]:
    """Return at most four freeze depths that are worth a trial, input first.

    The head alone costs next to nothing. The peak of the probe profile is the most that is worth
    freezing, and the best depth lies at or below it: of three such depths the best was 0.2 points
    short of the best of all on average, freezing up to the peak 1.4 (a small network on shapes).
    Opening everything is left out where the images are surely like those of the pretraining: there
    it gained nothing on hymenoptera and cats vs dogs, while on the sets of large shift it gained 3
    to 10 points although the last stage was the peak (MobileNetV2 0.35 at 224).

    Args:
        num_stages: Of the backbone.
        best_stage: Number of the stage at the peak, from 0.
        different: Probability that the images are unlike those of the pretraining.
    """
    peak = min(best_stage + 1, num_stages - 1)
    depths = {num_stages, peak, math.ceil(peak / 2)}
    if different >= UNSURE[0]:
        depths.add(0)
    return tuple(sorted(depths))


class HalvingOracle(keras_tuner.Oracle):  # type: ignore[misc]
    """Successive halving (https://arxiv.org/abs/1502.07943): the best third trains on, for longer.

    The first rung goes from the head alone, which is measured once, to more and more open stages,
    and at each depth from low rates to high ones. A rate that was too high, worse than the best one
    there by two standard errors and above it, ends a depth, and is not tried with more stages open.
    Each next rung trains the best third anew with three times the epochs, until one is left or the
    epochs are `max_epochs`. A failed trial is not taken on.

    Args:
        depths: candidates that train, input first.
        head_alone: the depth that stands for the head alone, or None to leave it out.
        space: rates and epochs.
        max_trials: the most trials of all rungs together; the first rung is cut to fit, rates far
            from the middle one first.
        seed: of nothing here: halving draws nothing.
        num_images: validation images, of which a score is taken for the share answered right.
    """

    def __init__(
        self,
        depths: Sequence[int],
        head_alone: int | None,
        space: SearchSpace,
        max_trials: int,
        seed: int,
        num_images: int,
    ):
        super().__init__(OBJECTIVE, max_trials=max_trials, seed=seed, **FAILURES)
        self._max_epochs, self._epochs = space.max_epochs, space.min_epochs
        self._num_images = num_images
        self._rung: dict[str, Setting] = {}
        self._is_first = True
        first = [] if head_alone is None else [Setting(head_alone, None, 0)]
        grid = [(depth, r) for r in _middle_first(space.learning_rates) for depth in depths[::-1]]
        size = _fitting(len(grid), max_trials - len(first), space)
        order = sorted(grid[:size], key=lambda pair: (-depths.index(pair[0]), pair[1]))
        self._waiting = first + [Setting(depth, rate, self._epochs) for depth, rate in order]
        self.num_planned = len(first) + (sum(rung_sizes(size, space)) if size else 0)

    def populate_space(self, trial_id: str) -> dict[str, object]:
        """Return the values of the next trial, that it has to wait, or that there is none."""
        if self._has_to_wait() and not set(self._rung) <= set(self.end_order):
            return {"status": "IDLE"}  # other workers are still running what it depends on
        if self._is_first:
            self._leave_out_rates_too_high()
        if not self._waiting:
            self._waiting = self._next_rung()
        if not self._waiting:
            return {"status": "STOPPED"}
        depth, rate, epochs = chosen = self._waiting.pop(0)
        values: dict[str, float] = {DEPTH: depth, EPOCHS: epochs}
        if rate is not None:
            values[RATE] = rate
            self._rung[trial_id] = chosen
        return {"status": "RUNNING", "values": values}

    def _has_to_wait(self) -> bool:
        """Whether the next trial depends on those that run: not on one other rate of its depth."""
        if not self._waiting:
            return True
        depths = [one.freeze_depth for one in self._rung.values()]
        return self._is_first and depths.count(self._waiting[0].freeze_depth) != 1

    def _scores(self) -> dict[Setting, float]:
        """Return the scores of the trials of the rung that were completed."""
        ended = {one: self.trials[trial_id] for trial_id, one in self._rung.items()}
        return {one: trial.score for one, trial in ended.items() if trial.status == "COMPLETED"}

    def _leave_out_rates_too_high(self) -> None:
        """Keep the waiting trials whose rate was not too high where no more stages were open."""
        by_depth: dict[int, dict[float, float]] = {}
        for (depth, rate, _), score in self._scores().items():
            by_depth.setdefault(depth, {})[rate or 0.0] = min(max(score, 0.0), 1.0)
        found = (lowest_too_high(scores, self._num_images) for scores in by_depth.values())
        lowest = min(found, default=math.inf)
        left = [one for one in self._waiting if (one.learning_rate or 0.0) < lowest]
        self.num_planned -= len(self._waiting) - len(left)
        self._waiting = left

    def _next_rung(self) -> list[Setting]:
        if self._epochs >= self._max_epochs or len(self._rung) < 2:
            return []
        scores = self._scores()
        best = sorted(scores, key=lambda one: -scores[one])
        kept = best[: math.ceil(len(self._rung) / FACTOR)]
        self._epochs = min(self._max_epochs, self._epochs * FACTOR)
        self._rung, self._is_first = {}, False
        return [one._replace(epochs=self._epochs) for one in kept]


def lowest_too_high(scores: Mapping[float, float], num_images: int) -> float:
    """Return the lowest rate above the best that is worse by two standard errors, or infinity."""
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None:
        return math.inf
    least = 3 * scores[best] - 2 * least_worth_keeping(scores[best], num_images)
    return min((r for r in scores if r > best and scores[r] < least), default=math.inf)


def make_oracle(
    tuner: str,
    depths: Sequence[int],
    num_stages: int,
    space: SearchSpace,
    max_trials: int,
    seed: int,
    num_images: int,
) -> keras_tuner.Oracle:
    """Return the oracle with a name of `TUNERS`; depth `num_stages` means head only.

    The others are as `HalvingOracle` has them.
    """
    open_depths = [depth for depth in depths if depth < num_stages]
    seed += 1  # KerasTuner takes 0 for no seed
    if tuner == "halving":
        head_alone = num_stages if num_stages in depths else None
        return HalvingOracle(open_depths, head_alone, space, max_trials, seed, num_images)
    how = {
        "objective": OBJECTIVE, "hyperparameters": _declared(depths, open_depths, space),
        "seed": seed, **FAILURES,
    }  # fmt: skip
    if tuner == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=max_trials, **how)
    if tuner == "bayesian":
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=max_trials, **how)
    # As many sweeps as the trials allow: one sweep of so few epochs is a handful of trials.
    oracle = keras_tuner.oracles.HyperbandOracle(
        max_epochs=space.max_epochs, factor=FACTOR, hyperband_iterations=max_trials, **how
    )
    oracle.max_trials = max_trials
    return oracle


def _declared(
    depths: Sequence[int], open_depths: Sequence[int], space: SearchSpace
) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.Choice(DEPTH, list(depths), default=max(depths))
    if open_depths:
        low, high = min(space.learning_rates), max(space.learning_rates)
        with hp.conditional_scope(DEPTH, list(open_depths)):
            if low < high:
                hp.Float(RATE, low, high, sampling="log")
            else:
                hp.Fixed(RATE, low)
    return hp


def _middle_first(rates: Sequence[float]) -> list[float]:
    """Return rates by their distance from the middle one."""
    ordered = sorted(rates)
    middle = (len(ordered) - 1) / 2
    return sorted(ordered, key=lambda rate: abs(ordered.index(rate) - middle))


def _fitting(count: int, room: int, space: SearchSpace) -> int:
    """Return how many trials the first rung may have for all rungs to fit."""
    while count > 1 and sum(rung_sizes(count, space)) > room:
        count -= 1
    return min(count, max(room, 0))


def rung_sizes(count: int, space: SearchSpace) -> list[int]:
    """Return the trials of each rung of halving that starts with `count`."""
    sizes, epochs = [count], space.min_epochs
    while sizes[-1] > 1 and epochs < space.max_epochs:
        epochs = min(space.max_epochs, epochs * FACTOR)
        sizes.append(math.ceil(sizes[-1] / FACTOR))
    return sizes
