"""Limits the time of a run: shortens or skips fine-tuning."""

import dataclasses
import math
import re
import time

import keras
import numpy as np

from kerastl._checks import check_float
from kerastl.data.load import ImageData
from kerastl.errors import ArgumentError
from kerastl.frozen.prefixes import image_size_of
from kerastl.model.recipes import Phase, Recipe
from kerastl.runs.telling import Tell, silent

EPOCH_PASSES = 3.0
"""Forward passes that an epoch of open stages costs: ahead, and back to inputs and to weights."""
TEST_PASSES = 3.0
"""Those over the test images: to measure, to explain, and to compare with the export."""
TRACES = 4.0
"""How often a network is traced: to be trained, measured, exported and compared."""
FIXED_SECONDS = 8.0
"""To export and prove a small network and write its page, on two cores."""


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as 90, 90s, 10m or 2h."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if found is None:
        raise ArgumentError(
            f"`time_limit` must be a time such as 90, 10m or 2h. Received: {text!r}"
        )
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


class TimeLimit:
    """The time that is left of a run.

    Args:
        limit: from now until the run is written: seconds above 0, or a time such as "90s", "10m" or
            "2h"; None: no limit.
        tell: is told what was left out.
    """

    def __init__(self, limit: float | str | None, tell: Tell):
        self._end, self._tell = math.inf, tell
        if limit is not None:
            seconds = seconds_of(limit) if isinstance(limit, str) else limit
            check_float("time_limit", seconds, 0.0, exclusive=True)
            self._end = time.monotonic() + seconds

    def what_fits(self, recipe: Recipe, model: keras.Model, data: ImageData) -> Recipe:
        """Return what there is time for of a recipe, by the measured seconds of a forward pass.

        From now on, the time to measure, export and write is kept back.
        """
        if self._end == math.inf:
            return recipe
        shape = (recipe.batch_size, *image_size_of(model), data.train.channels)
        first, again = (_seconds(model, np.zeros(shape, "uint8")) for _ in range(2))
        each = again / recipe.batch_size
        num_test = 0 if data.test is None else len(data.test)
        self._end -= FIXED_SECONDS + TRACES * (first - again) + TEST_PASSES * each * num_test
        left = self._end - time.monotonic() - each * len(data.train)  # once, for the head
        needed = EPOCH_PASSES * each * len(data.train)
        fitted = [phase for phase in recipe.phases if phase.method == "probe"]
        if left < 0:
            self._tell(f"Warning: the run will take about {-left:.0f} s more than the time limit.")
        if left > needed or not fitted or len(fitted) == len(recipe.phases):
            return recipe
        self._tell(
            f"Fine-tuning was skipped: an epoch takes about {needed:.1f} s, but the time "
            f"limit leaves {max(0.0, left):.1f} s for it."
        )
        return dataclasses.replace(recipe, phases=tuple(fitted))

    def callbacks(self, phase: Phase) -> list[keras.callbacks.Callback]:
        """Return what ends a phase when the time is up; for `fine_tune`."""
        return [] if self._end == math.inf else [_Stop(self._end, phase, self._tell)]


def _seconds(model: keras.Model, images: np.ndarray) -> float:
    started = time.perf_counter()
    model.predict_on_batch(images)
    return time.perf_counter() - started


class _Stop(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a phase at the end of the step or epoch in which the time is up."""

    def __init__(self, end: float, phase: Phase, tell: Tell):
        super().__init__()
        self._end, self._phase, self._tell, self._epoch = end, phase, tell, 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if time.monotonic() > self._end and not self.model.stop_training:
            self.model.stop_training = True
            self._tell(
                f"The time limit stopped {self._phase.name} in epoch {self._epoch} of "
                f"{self._phase.epochs}."
            )


NO_LIMIT = TimeLimit(None, silent)
