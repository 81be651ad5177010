"""Trains the phases of a recipe on one model, from the saved state."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl._steps import say, step
from kerastl._task import find_task
from kerastl._versions import versions
from kerastl.data.load import ImageData
from kerastl.distribute import num_replicas, on_one_device
from kerastl.frozen.activations import Embeddings, extract_embeddings
from kerastl.frozen.runtime import FrozenRuntime
from kerastl.machines import broadcast_json, is_chief
from kerastl.model.freeze import freeze_to, open_batch_normalization, stages
from kerastl.model.optimizers import layerwise_optimizer
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.callbacks import (
    KeepBest,
    PhaseProgress,
    Rows,
    StopOnNonFinite,
    least_worth_keeping,
    say_epoch,
    tensorboard,
)
from kerastl.training.decision import SHARES, Decision, decide, measure
from kerastl.training.objective import Objective
from kerastl.training.phases import (
    compile_phase,
    fit_probe_head,
    phase_batches,
    run_epochs,
    standardised_outputs,
    standardised_targets,
)
from kerastl.training.resume import (
    Checkpoints,
    SaveAndResume,
    TrainingState,
    broadcast_arrays,
    broadcast_state,
    get_values,
    set_values,
)

# What a state on disk keeps of a `Training`, beside weights and callbacks.
_RECORDED = ("rows", "seconds", "best_epoch", "val_accuracy", "decisions")


@dataclass
class Training:
    """A model that trains by a recipe, phase by phase.

    The first seven fields are what `fine_tune` was given.

    Attributes:
        rows: the measures of each epoch, with its phase.
        seconds: wall-clock time of each phase.
        best_epoch: the epoch that was kept of each phase, from 1; 0 for the weights before it.
        val_accuracy: of the weights as they are, where a probe was measured.
        decisions: what became of what each phase learnt, in words.
    """

    model: keras.Model
    data: ImageData
    recipe: Recipe
    runtime: FrozenRuntime
    own: Objective = Objective()  # noqa: RUF009  # frozen
    log_dir: Path | None = None
    verbose: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    best_epoch: dict[str, int] = field(default_factory=dict)
    val_accuracy: float | None = None
    decisions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._state = TrainingState()
        self._checkpoints: Checkpoints | None = None
        self._started = 0.0
        self._task = find_task(self.recipe.task)

    def resume(self, checkpoints: str | Path | None) -> None:
        """Keep each epoch in a folder from now on, and go on from the last one that is there.

        Every process goes on from what the chief reads; the chief alone writes.

        Raises:
            DataError: the folder has the states of another training.
        """
        strategy, state = self.model.distribute_strategy, None
        if checkpoints and is_chief(strategy):
            self._checkpoints = Checkpoints(Path(checkpoints), self._identity())
            state = self._checkpoints.read(say)
        if num_replicas(self.model) > 1:
            state = broadcast_state(strategy, state)
        if state is None:
            return
        self._state = state
        set_values(self.model.variables, state.arrays["model"])
        for name in _RECORDED:
            setattr(self, name, state.values[name])
        if self.verbose and state.phase < len(self.recipe.phases):
            name = self.recipe.phases[state.phase].name
            say(f"Continuing with phase {name}, epoch {state.epoch + 1}.")

    def phases_left(self) -> Iterator[Phase]:
        """Yield the phases that are left; what was trained in one is kept before the next."""
        for index in range(self._state.phase, len(self.recipe.phases)):
            phase = self.recipe.phases[index]
            self._started = time.perf_counter() - self.seconds.get(phase.name, 0.0)
            yield phase
            self._save(TrainingState(index + 1, arrays={"model": get_values(self.model.variables)}))
            self._state = TrainingState(index + 1)

    def fit_head(self, phase: Phase) -> None:
        """Fit the head in one go to embeddings of the frozen backbone, and measure it."""
        started = time.perf_counter()
        with step("Running the frozen stages and fitting the classifier", shown=self.verbose):
            freeze_to(self.model, len(stages(self.model)))
            (train,) = fit_probe_head(
                self.model, [self.data.train], self.recipe, self.runtime, self.own
            )
            self._broadcast_weights()
            row = self._measure(train)
            held_out = self.data.validation
            if held_out is not None and len(held_out):
                validation = extract_embeddings(self.model, held_out, runtime=self.runtime)
                row |= {f"val_{name}": value for name, value in self._measure(validation).items()}
                self.val_accuracy = row.get("val_accuracy")
        self.rows.append({"phase": phase.name, **row})
        self.best_epoch[phase.name] = 1
        if self.verbose:
            say_epoch(phase.name, 1, row, time.perf_counter() - started)

    def train_stages(self, phase: Phase) -> None:
        """Train the head and the stages above the freeze depth, if that could help."""
        begun = self._state.epoch > 0
        if not begun and self._cannot_improve(phase):
            return
        labels = self.data.train.labels
        with standardised_outputs(self.model, self._task, labels, begun=begun):
            freeze_to(self.model, phase.freeze_depth)
            if phase.train_batch_norm:
                open_batch_normalization(self.model)
            self._broadcast_weights()
            best = self._run(phase)
        num_epochs = sum(row["phase"] == phase.name for row in self.rows)
        self.best_epoch[phase.name] = best.best_epoch if best else num_epochs

    def _run(self, phase: Phase) -> KeepBest | None:
        """Train the epochs that are left of a phase; return what kept the best of them."""
        first, recipe = self._state.epoch, self.recipe
        with step(f"Preparing {phase.name}", shown=self.verbose):
            prepared = phase_batches(self.model, self.data, recipe, phase, self.runtime, first)
        network, *batches = prepared
        labels = self.data.train.labels
        train, validation = (standardised_targets(self._task, labels, one) for one in batches)
        compiled = compile_phase(
            self.model, network, recipe, phase, labels, self.own, in_one_call=True
        )
        best = None
        if validation is not None:
            answer = partial(_answers, on_one_device(network), validation)
            criterion = self._task.keep_criterion(answer)
            if not criterion:
                criterion = {"least": -1.0, "keep_last": phase.schedule != "constant"}
                if recipe.objective != "accuracy":
                    criterion["score"] = lambda _: self._score(*answer())
            best = KeepBest(patience=recipe.patience, **criterion)
        own = self.own.callbacks_of(phase)
        progress = PhaseProgress(phase.name, compiled.steps * phase.epochs)
        save = self._save if self._checkpoints else None
        resumed = SaveAndResume(self.model, network, self._state, best=best, own=own, save=save)
        resumed.restore()
        if resumed.is_over(phase.epochs):
            if best is not None:
                best.settle(network, first, stopped=self._state.values["stopped"])
                self._decide(phase, network, validation, best)
            return best
        watch = [
            StopOnNonFinite(phase.name, phase.learning_rate),
            Rows(phase.name, self.rows),
            *([best] if best else []),
            *([progress] if self.verbose else []),
            *tensorboard(self.log_dir, phase.name),
            *own,
            resumed,
        ]
        with contextlib.closing(progress):
            run_epochs(compiled, phase, train, validation, watch, first)
        if best is not None:
            self._decide(phase, network, validation, best)
        return best

    def _class_weight(self) -> dict[int, float] | None:
        labels, num_outputs = self.data.train.labels, self.model.output_shape[-1]
        return self.own.class_weights(self.recipe, labels, num_outputs)

    def _score(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Return the objective of one-hot labels and outputs."""
        return float(measure(self.recipe.objective, labels.argmax(1), outputs.argmax(1)))

    def _decide(self, phase: Phase, network: keras.Model, validation: Any, best: KeepBest) -> None:
        """Keep what a phase learnt, a share of it, or what was there before."""
        if not self._task.has_one_class or not best.best_epoch:
            return

        alone = on_one_device(network)  # whose graph is traced once

        def outputs(share: float) -> np.ndarray:
            pairs = zip(best.first_weights, best.best_weights, strict=True)
            network.set_weights([old + share * (new - old) for old, new in pairs])
            return _answers(alone, validation)[1]

        labels = np.concatenate([np.asarray(y) for _, y in validation]).argmax(1)
        learnt = {share: outputs(share) for share in SHARES}
        weights = self._class_weight()
        counted = None if weights is None else np.array([weights[label] for label in labels])
        found = decide(labels, outputs(0.0), learnt, counted, self.recipe.objective)
        if num_replicas(self.model) > 1:
            strategy = self.model.distribute_strategy
            found = Decision(**broadcast_json(strategy, asdict(found)))
        outputs(found.share)
        if not found.share:
            best.best_epoch = 0
        self.decisions[phase.name] = found.text(phase.name)
        if self.verbose:
            say(self.decisions[phase.name])

    def finish(self) -> keras.callbacks.History:
        """Compile for the user's own `evaluate` and `fit`, and gather the history."""
        rate = self.recipe.phases[-1].learning_rate or 1e-3
        with self.model.distribute_strategy.scope():
            optimizer = layerwise_optimizer(
                self.model, "adamw", learning_rate=rate, layer_decay=1.0
            )
            metrics = self._task.compiled_metrics(self.model.output_shape[-1])
            self.model.compile(optimizer, self._task.loss, metrics=metrics)
        history = keras.callbacks.History()
        history.set_model(self.model)
        names = {name: None for row in self.rows for name in row}
        history.history = {name: [row.get(name) for row in self.rows] for name in names}
        history.epoch = list(range(len(self.rows)))
        history.seconds = self.seconds
        history.best_epoch = self.best_epoch
        history.decisions = self.decisions
        history.store = self.runtime.usage
        return history

    def _identity(self) -> dict[str, Any]:
        """Return all that a training depends on."""
        return {
            "recipe": self.recipe.to_dict(),
            "data": {"fingerprint": self.data.fingerprint(), "classes": self.data.class_names},
            "network": {"name": self.model.name, "parameters": self.model.count_params()},
            "versions": versions(),
            **self.own.to_dict(),
        }

    def _save(self, state: TrainingState) -> None:
        """Keep a state, with what is recorded of the training."""
        phase = self.recipe.phases[self._state.phase]
        self.seconds[phase.name] = time.perf_counter() - self._started
        if self._checkpoints is not None:
            state.values |= {name: getattr(self, name) for name in _RECORDED}
            self._checkpoints.write(state)

    def _broadcast_weights(self) -> None:
        """Give every machine the chief's weights; another processor rounds otherwise."""
        if num_replicas(self.model) > 1:
            weights = {"model": self.model.get_weights()}
            chiefs = broadcast_arrays(self.model.distribute_strategy, weights)
            self.model.set_weights(chiefs["model"])

    def _measure(self, embeddings: Embeddings) -> dict[str, float]:
        """Return loss and accuracy of the head on embeddings."""
        outputs = np.asarray(self.model.get_layer("head")(embeddings.x))
        return self._task.head_measures(embeddings.y, outputs, self.data.train.labels)

    def _cannot_improve(self, phase: Phase) -> bool:
        """Whether no epoch could be kept, since the head is right about the validation images."""
        num_images = len(self.data.validation or ())
        accuracy = self.val_accuracy
        least = accuracy or 0.0
        if self.recipe.objective == "accuracy":  # by class a rare one may be all wrong
            least = least_worth_keeping(least, max(1, num_images))
        if accuracy is None or least < 1:
            self.val_accuracy = None  # about to change
            return False
        self.best_epoch[phase.name] = 0
        if self.verbose:
            say(
                f"{phase.name}: skipped. The head already classifies {accuracy:.1%} of "
                f"{num_images} validation images correctly, so an improvement could not be "
                "measured."
            )
        return True


def _answers(network: keras.Model, batches: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and outputs of a network of one device on batches, in order."""
    labels = np.concatenate([np.asarray(y) for _, y in batches])
    images = batches.map(lambda x, _: (x,))  # several inputs: else the second is taken for labels
    return labels, np.asarray(network.predict(images, verbose=0))
