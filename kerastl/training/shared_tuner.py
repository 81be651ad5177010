"""The loop of a search: an oracle chooses the trials, and one network runs them all."""

import contextlib
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras_tuner

from kerastl.errors import TrainingError
from kerastl.training.oracles import DEPTH, EPOCHS, OBJECTIVE, RATE
from kerastl.training.trial_runner import TrialRunner
from kerastl.training.trials import FAILED, Setting, Trial, TrialLog
from kerastl.training.workers import ADDRESS, BEAT_SECONDS, PORT, Team


class Progress(NamedTuple):
    """How far a search is."""

    trial: Trial  # the one that has just ended
    trials: Sequence[Trial]  # all that are known, those of an earlier process included
    num_ended: int  # of the trials that this process asked for
    num_planned: int  # the most that it will ask for
    seconds_left: float  # until the last trial, from the time that the others took


class SharedTuner(keras_tuner.Tuner):  # type: ignore[misc]
    """Runs the trials of an oracle on one network, and takes those that are known from a log.

    KerasTuner's own state cannot be trusted: a torn file cannot be read, some oracles forget what
    they drew, and an old directory is taken up whatever was searched. So none of it is kept: on
    resuming, the same oracle with the same seed is told the scores in the log again, and asks for
    the same trials.

    Args:
        oracle: of `make_oracle`.
        runner: runs a trial.
        log: keeps trials.
        max_epochs: of a trial where the oracle names none.
        started: when the search began, by `time.perf_counter`.
        budget: seconds after which no trial starts, or None.
        on_progress: called after each trial.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        runner: TrialRunner,
        log: TrialLog,
        max_epochs: int,
        started: float,
        budget: float | None,
        on_progress: Callable[[Progress], None],
    ):
        self._folder = tempfile.TemporaryDirectory(prefix="kerastl-search-")
        super().__init__(oracle, directory=self._folder.name, project_name="state", overwrite=True)
        self.oracle.verbose = 0
        self.runner, self.log, self.max_epochs, self.budget = runner, log, max_epochs, budget
        self.on_progress = on_progress
        self._started = started - sum(trial.seconds for trial in log.trials)

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Run trials until the oracle has no more or the budget is spent.

        KerasTuner's own loop takes every error for that of a trial, a full disk as well, and prints
        each.
        """
        with warnings.catch_warnings(), self._folder:
            # KerasTuner 1.4.8 calls `threading.currentThread`.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="keras_tuner")
            # The Gaussian process of the Bayesian oracle, about its own kernel.
            warnings.filterwarnings("ignore", module="sklearn.gaussian_process")
            while True:
                trial = self.oracle.create_trial(self.tuner_id)
                if trial.status == "STOPPED":
                    return
                if trial.status == "IDLE":  # other workers have to end theirs first
                    time.sleep(BEAT_SECONDS / 2)
                    continue
                try:
                    self.oracle.update_trial(trial.trial_id, self.run_trial(trial))
                    trial.status = "COMPLETED"
                except keras_tuner.errors.FailedTrialError as error:
                    trial.status, trial.message = "FAILED", str(error)
                self.oracle.end_trial(trial)
                if isinstance(self.oracle, keras_tuner.Oracle):  # else it is the chief's
                    self._look_at_the_clock()
                    self._tell(self._found(trial))

    def serve(self, team: Team) -> None:
        """Hand out trials over KerasTuner's port until the workers have run all.

        KerasTuner's own chief waits for ever for a worker that has died. Here its trial is given to
        another one, and when that dies too it has failed.

        Raises:
            TrainingError: The port cannot be opened, or trials are left and no worker is.
        """
        server = _Server(super().search)
        server.start()
        hired: set[str] = set()
        with self._folder:
            while not hired or set(team.names()) - {self.tuner_id}:
                time.sleep(BEAT_SECONDS / 4)
                server.check()
                hired |= set(team.names()) - {self.tuner_id}
                for name in team.lost():
                    self._give_up(name, team)
                self._look_at_the_clock()
                for trial in self.log.read_new():
                    self._tell(trial)
            if self.oracle.create_trial(self.tuner_id).status != "STOPPED":
                raise TrainingError(
                    f"All workers have ended ({', '.join(sorted(hired))}) but trials are "
                    "left. Their output shows the reason; finished trials are kept. Start "
                    "the search again with the same directory, and then the workers."
                )

    def _give_up(self, name: str, team: Team) -> None:
        """Take back the trial of a worker that was lost."""
        trial = self.oracle.ongoing_trials.get(name)
        if trial is not None:
            trial.status, trial.message = "INVALID", f"The worker {name} that ran it has died."
            with contextlib.redirect_stdout(sys.stderr):  # KerasTuner counts the retries there
                self.oracle.end_trial(trial)
            if trial.status == "FAILED":  # not for the first time
                found = Trial(*self._key(trial), FAILED, 0.0, reason=trial.message)
                self.log.add(found)
                self._tell(found)
        self.oracle.tuner_ids.discard(name)
        team.leave(name)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the score of a trial, or raise `FailedTrialError` with the reason."""
        found = self._found(trial)
        if not found.is_completed:
            raise keras_tuner.errors.FailedTrialError(found.reason)
        return {OBJECTIVE.name: found.rank}

    def _found(self, trial: Any) -> Trial:
        """Return what a trial gave, from the log where it is known."""
        self.log.read_new()
        found = self.log.find(self._key(trial))
        if found is None:
            found = self.runner.run(*self._key(trial))
            self.log.add(found)
        return found

    def _key(self, trial: Any) -> Setting:
        """Return what the oracle asks for."""
        values = trial.hyperparameters.values
        rate = values.get(RATE)
        epochs = 0 if rate is None else int(values.get(EPOCHS, self.max_epochs))
        return Setting(int(values[DEPTH]), rate, epochs)

    def _look_at_the_clock(self) -> None:
        """Let no trial start once the budget is spent."""
        if self.budget is not None and self._spent() >= self.budget:
            self.oracle.max_trials = len(self.oracle.trials)

    def _tell(self, found: Trial) -> None:
        """Tell how far the search is."""
        ended, at_once = len(self.oracle.end_order), max(1, len(self.oracle.ongoing_trials))
        planned = min(getattr(self.oracle, "num_planned", sys.maxsize), self.oracle.max_trials)
        each = sum(trial.seconds for trial in self.log.trials) / len(self.log.trials)
        left = (planned - ended) * each / at_once
        if self.budget is not None:
            left = min(left, max(0.0, self.budget - self._spent()))
        self.on_progress(Progress(found, tuple(self.log.trials), ended, planned, left))

    def _spent(self) -> float:
        return time.perf_counter() - self._started


class _Server(threading.Thread):
    """KerasTuner's chief in a separate thread, with its errors."""

    def __init__(self, serve: Callable[[], None]):
        super().__init__(daemon=True)  # it ends up to 20 s after the last trial
        self._serve = serve
        self._error: Exception | None = None

    def run(self) -> None:
        """Serve until the last worker has stopped."""
        try:
            self._serve()
        except Exception as error:  # gRPC raises a bare RuntimeError
            self._error = error

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise TrainingError(
                f"The port {os.environ[ADDRESS]}:{os.environ[PORT]} for the workers cannot "
                f"be opened: {self._error}. Choose another {PORT}."
            ) from self._error
