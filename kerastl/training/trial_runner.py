"""Runs the trials of a search on stored outputs of the frozen stages."""

import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from kerastl._task import find_task
from kerastl.data.load import ImageData
from kerastl.distribute import on_one_device
from kerastl.errors import ArgumentError, DataError, TrainingError, WeightsError
from kerastl.frozen.activations import extract_embeddings
from kerastl.frozen.runtime import FrozenRuntime
from kerastl.model.freeze import freeze_to, stages
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.callbacks import Logs, StopOnNonFinite
from kerastl.training.phases import (
    CompiledPhase,
    compile_phase,
    fit_probe_head,
    phase_batches,
    run_epochs,
    schedule_of,
    standardised_outputs,
    standardised_targets,
)
from kerastl.training.resume import get_values, set_values
from kerastl.training.stored import PhaseBatches, stored_phase
from kerastl.training.trials import COMPLETED, FAILED, Trial

# Not of one trial: every other one would fail the same way.
_OF_ALL_TRIALS = (ArgumentError, DataError, WeightsError)


class CompiledTrial(NamedTuple):
    """What the trials of one depth share: a compiled network, and its optimizer as it was built."""

    compiled: CompiledPhase
    optimizer_start: list[np.ndarray]


class TrialRunner:
    """Trains one network again and again from the same start, at other depths and rates.

    A trial is a short `fine_tune`: the head starts from the probe, and the stages above the freeze
    depth train by the last phase of the recipe, from stored activations. It is scored on all
    validation images after its last epoch, so that no epoch is picked by them. Trials of one depth
    share the activations and one traced graph; after each, every weight is what it was before.

    Args:
        model: of `build_transfer_model`.
        data: what is trained on, and the validation images that the trials are scored on.
        recipe: its last phase is the pattern of the trials'.
        runtime: runs the frozen stages.
        depths: the candidates. What a deeper one needs is derived from what is stored of the
            shallowest, so that the images go through the network once.
    """

    def __init__(
        self,
        model: keras.Model,
        data: ImageData,
        recipe: Recipe,
        runtime: FrozenRuntime,
        depths: Sequence[int] = (),
    ):
        if data.validation is None:
            raise DataError("A search needs validation images for its trials, but there are none.")
        self.model, self.data, self.recipe, self.runtime = model, data, recipe, runtime
        self.validation, self.task = data.validation, find_task(data.task)
        self._start: list[np.ndarray] = []
        self._compiled: dict[int, CompiledTrial] = {}
        self._batches: dict[tuple[int, int], PhaseBatches] = {}
        self._shallowest = min((d for d in depths if 0 < d < len(stages(model))), default=0)

    def run(self, depth: int, learning_rate: float | None, epochs: int) -> Trial:
        """Return a trial; what goes wrong in it alone is the reason of a failed one.

        Args:
            depth: how many stages do not train; the number of stages for the head alone.
            learning_rate: the peak rate; None for the head alone.
            epochs: passes over the training images; 0 for the head alone.
        """
        started = time.perf_counter()
        trial = Trial(depth, learning_rate, epochs, COMPLETED, 0.0)
        try:
            self._fit_head()
            trial = self._scored(trial, self._predict(trial))
        except _OF_ALL_TRIALS:
            raise
        except Exception as error:  # one trial that fails is no reason to lose the others
            reason = f"{type(error).__name__}: {error}"
            trial = dataclasses.replace(trial, status=FAILED, reason=reason)
            self._compiled.pop(depth, None)
        self.restore()
        return dataclasses.replace(trial, seconds=time.perf_counter() - started)

    def _scored(self, trial: Trial, outputs: np.ndarray) -> Trial:
        """Return a trial with its score, its loss and what each validation image brings."""
        if not np.isfinite(outputs).all():
            raise TrainingError("The outputs of the network contain NaN.")
        labels = self.validation.labels
        each = self.task.image_scores(labels, outputs)
        loss = self.task.head_measures(labels, outputs, self.data.train.labels)["loss"]
        return dataclasses.replace(trial, score=float(each.mean()), loss=loss, image_scores=each)

    def restore(self) -> None:
        """Give the model back every weight, and every state of a random layer, of the start."""
        if self._start:
            set_values(self.model.variables, self._start)

    def _fit_head(self) -> None:
        """Start the head from a probe, once, as the first phase of LP-FT does."""
        keras.utils.set_random_seed(self.recipe.seed)
        if not self._start:
            fit_probe_head(self.model, [self.data.train], self.recipe, self.runtime)
            self._start = [np.array(variable) for variable in self.model.variables]

    def _predict(self, trial: Trial) -> np.ndarray:
        """Return the outputs for the validation images after a trial."""
        if trial.learning_rate is None:
            x, _ = extract_embeddings(self.model, self.validation, runtime=self.runtime)
            return np.asarray(self.model.get_layer("head")(x))
        phase = dataclasses.replace(
            self.recipe.phases[-1],
            freeze_depth=trial.freeze_depth,
            learning_rate=trial.learning_rate,
            epochs=trial.epochs,
        )
        return self._train(phase)

    def _train(self, phase: Phase) -> np.ndarray:
        """Return the outputs for the validation images after a short training."""
        freeze_to(self.model, phase.freeze_depth)
        batches = self._batches_of(phase)
        compiled, optimizer_start = self._compiled_for(phase, batches.network)
        set_values(compiled.network.optimizer.variables, optimizer_start)
        rates = SetRates(phase, compiled.steps * phase.epochs)
        watch = [rates, StopOnNonFinite(phase.name, phase.learning_rate)]
        train = standardised_targets(self.task, self.data.train.labels, batches.train)
        with standardised_outputs(self.model, self.task, self.data.train.labels):
            run_epochs(compiled, phase, train, None, watch)
        alone = on_one_device(compiled.network)
        return np.asarray(alone.predict(batches.validation, verbose=0))

    def _batches_of(self, phase: Phase) -> PhaseBatches:
        """Return stored activations, or the images where nothing is frozen or kept."""
        key = phase.freeze_depth, phase.epochs
        if key not in self._batches:
            if 0 < self._shallowest < phase.freeze_depth and not self._batches:
                first = dataclasses.replace(phase, freeze_depth=self._shallowest)
                stored_phase(self.model, self.data, self.recipe, first, self.runtime)
            self._batches[key] = phase_batches(
                self.model, self.data, self.recipe, phase, self.runtime
            )
        return self._batches[key]

    def _compiled_for(self, phase: Phase, network: keras.Model) -> CompiledTrial:
        """Return the network that trains from a depth, compiled once for all rates."""
        if phase.freeze_depth not in self._compiled:
            if network is self.model:  # `freeze_to` undoes its compilation
                with self.model.distribute_strategy.scope():
                    network = keras.Model(network.inputs, network.outputs[0])
            constant = dataclasses.replace(phase, schedule="constant")
            compiled = compile_phase(
                self.model, network, self.recipe, constant, self.data.train.labels
            )
            start = get_values(network.optimizer.variables)
            self._compiled[phase.freeze_depth] = CompiledTrial(compiled, start)
        return self._compiled[phase.freeze_depth]


class SetRates(keras.callbacks.Callback):  # type: ignore[misc]
    """Set the rate of each step from outside of the graph, so that one graph serves all rates."""

    def __init__(self, phase: Phase, total_steps: int):
        super().__init__()
        schedule = schedule_of(phase, total_steps)
        self._rates = [
            float(schedule(step) if callable(schedule) else schedule) for step in range(total_steps)
        ]
        self._step = 0

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Set the rate of the step."""
        self.model.optimizer.learning_rate = self._rates[self._step]
        self._step += 1
