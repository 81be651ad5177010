"""What one phase of a recipe does to a model, on one device or many, from any of its epochs on."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl.advice.probe import SoftmaxProbe, head_weights
from kerastl.advice.task_probes import fit_labels, fit_values
from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import ImageData
from kerastl.distribute import num_replicas, steps_an_epoch
from kerastl.frozen.activations import (
    Embeddings,
    StoreChoice,
    extract_embeddings,
    image_size_of,
)
from kerastl.frozen.report import StoreReport
from kerastl.model.freeze import (
    freeze_to,
    inference_below,
    open_batch_normalization,
    stages,
)
from kerastl.model.heads import rescale_outputs, set_linear_head, task_of
from kerastl.model.objectives import (
    LOSSES,
    image_scores,
    label_measures,
    metrics_of,
    phase_loss,
    phase_metrics,
)
from kerastl.model.optimizers import layerwise_optimizer, optimizer_variables, phase_optimizer
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.callbacks import (
    KeepBest,
    PhaseProgress,
    Rows,
    StopOnNonFinite,
    least_worth_keeping,
    say,
    say_epoch,
    tensorboard,
)
from kerastl.training.loop import SharedLoop
from kerastl.training.resume import (
    Checkpoints,
    RestoreCallbacks,
    SaveEpoch,
    State,
    agreed_arrays,
    assign,
    state_of_callbacks,
    values_of,
)
from kerastl.training.stored import store_phase


@dataclass
class PhaseRunner:
    """What the phases of one `fine_tune` share, and how each of them trains.

    Args:
        model: of `build_transfer_model`.
        data: what is trained on.
        recipe: its phases are run one after another.
        callbacks: the user's, as `fine_tune` takes them.
        log_dir: of TensorBoard, or None.
        store: as `fine_tune` takes it.
        engine: as `fine_tune` takes it.
        verbose: whether to tell a person how it goes.
        checkpoints: what keeps each epoch, or None.
    """

    model: keras.Model
    data: ImageData
    recipe: Recipe
    callbacks: Callable[[Phase], Sequence[keras.callbacks.Callback]] | None
    log_dir: Path | None
    store: StoreChoice
    engine: str
    verbose: bool
    checkpoints: Checkpoints | None
    report: StoreReport = field(default_factory=StoreReport)
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    best_epoch: dict[str, int] = field(default_factory=dict)
    val_accuracy: float | None = None  # of the weights as they are, where a probe was measured

    def run(self, state: State | None) -> None:
        """Run the phases, all of them or those that a state leaves to be done."""
        state = state or State()
        if state.arrays:
            self._take_up(state)
        for index, phase in enumerate(self.recipe.phases):
            if index < state.phase:
                continue
            started = time.perf_counter() - self.seconds.get(phase.name, 0.0)
            if phase.method == "probe":
                self._fit_probe(phase)
            else:
                with self._standard_targets(begun=bool(state.epoch)):
                    self._fit_gradient(phase, started, state if state.epoch else None)
            state = State()
            self.seconds[phase.name] = time.perf_counter() - started
            self._save(State(index + 1, arrays={"model": values_of(self.model.variables)}))

    def _take_up(self, state: State) -> None:
        """Be where the state says that the training stood."""
        assign(self.model.variables, state.arrays["model"])
        for name in ("rows", "seconds", "best_epoch", "val_accuracy"):
            setattr(self, name, state.values[name])
        if self.verbose and state.phase < len(self.recipe.phases):
            say(
                f"Going on with phase {self.recipe.phases[state.phase].name}, "
                f"epoch {state.epoch + 1}."
            )

    def _save(self, state: State) -> None:
        if self.checkpoints is not None:
            state.values |= {
                "rows": self.rows, "seconds": self.seconds, "best_epoch": self.best_epoch,
                "val_accuracy": self.val_accuracy,
            }  # fmt: skip
            self.checkpoints.write(state)

    def _fit_probe(self, phase: Phase) -> None:
        """Fit the head in one go to embeddings of the frozen backbone."""
        started = time.perf_counter()
        freeze_to(self.model, len(stages(self.model)))
        how: dict[str, Any] = {
            "batch_size": self.recipe.batch_size,
            "store": self.store,
            "engine": self.engine,
            "report": self.report,
            "strategy": self.model.distribute_strategy,
        }
        flipped = AUGMENTATIONS[self.recipe.augmentation].flip
        train = extract_embeddings(self.model, self.data.train, flipped=flipped, **how)
        fit_head(self.model, [train], 1 + flipped, self.recipe.seed)
        self._agree()
        row = self._measured(train)
        held_out = self.data.validation
        if held_out is not None and len(held_out):
            validation = extract_embeddings(self.model, held_out, **how)
            row |= {f"val_{name}": value for name, value in self._measured(validation).items()}
            self.val_accuracy = row.get("val_accuracy")
        self.rows.append({"phase": phase.name, **row})
        self.best_epoch[phase.name] = 1
        if self.verbose:
            say_epoch(phase.name, 1, row, time.perf_counter() - started)

    def _agree(self) -> None:
        """Give every machine the chief's weights; another processor rounds otherwise."""
        if num_replicas(self.model) > 1:
            weights = {"model": self.model.get_weights()}
            agreed = agreed_arrays(self.model.distribute_strategy, weights)
            self.model.set_weights(agreed["model"])

    def _fit_gradient(self, phase: Phase, started: float, state: State | None) -> None:
        """Train the head and the stages above the freeze depth, if that could help."""
        if state is None and self._is_settled(phase):
            return
        freeze_to(self.model, phase.freeze_depth)
        if phase.train_batch_norm:
            open_batch_normalization(self.model)
        self._agree()
        first = 0 if state is None else state.epoch
        trained, train, validation = self._inputs(phase, first)
        replicas = num_replicas(self.model)
        steps = steps_an_epoch(len(self.data.train), self.recipe.batch_size, replicas)
        self._compile_phase(trained, phase, steps)
        loop = SharedLoop(trained, self._loss(reduction=None)) if replicas > 1 else None
        watch: list[Any] = [
            StopOnNonFinite(phase.name, phase.learning_rate), Rows(phase.name, self.rows)
        ]  # fmt: skip
        best = None
        if validation is not None:
            before = (
                trained.evaluate(validation, verbose=0, return_dict=True)
                if loop is None
                else loop.evaluate(validation)
            )
            best = KeepBest(
                before, len(self.data.validation or ()), self.recipe.patience,
                **self._worth_keeping(trained, validation),
            )  # fmt: skip
            watch.append(best)
        progress = PhaseProgress(phase.name, steps * phase.epochs)
        if self.verbose:
            watch.append(progress)
        own = list(self.callbacks(phase)) if self.callbacks else []
        watch += [*tensorboard(self.log_dir, phase.name), *own]
        index = self.recipe.phases.index(phase)
        if self.checkpoints is not None:
            watch.append(
                SaveEpoch(lambda n: self._save_epoch(index, n, trained, best, own, started))
            )
        if state is not None:
            self._continue(state, trained, best)
            watch.append(RestoreCallbacks(own, state.values["callbacks"]))
        if state is not None and (state.values["stopped"] or first == phase.epochs):
            if best is not None:
                trained.set_weights(best.best_weights)
        else:
            how: dict[str, Any] = {
                "epochs": phase.epochs, "initial_epoch": first, "callbacks": watch
            }  # fmt: skip
            with inference_below(self.model, phase.freeze_depth), contextlib.closing(progress):
                if loop is not None:
                    loop.fit(train, steps=steps, validation=validation, **how)
                else:
                    trained.fit(
                        train, steps_per_epoch=steps, validation_data=validation, shuffle=False,
                        verbose=0, **how,
                    )  # fmt: skip
        num_epochs = sum(row["phase"] == phase.name for row in self.rows)
        self.best_epoch[phase.name] = best.best_epoch if best else num_epochs

    def _save_epoch(
        self,
        phase: int,
        epoch: int,
        trained: keras.Model,
        best: KeepBest | None,
        own: Sequence[Any],
        started: float,
    ) -> None:
        """Keep all on which the epochs to come depend."""
        arrays = {
            "model": values_of(self.model.variables),
            "optimizer": values_of(optimizer_variables(trained.optimizer)),
        }
        values: dict[str, Any] = {
            "stopped": bool(trained.stop_training), "callbacks": state_of_callbacks(own)
        }  # fmt: skip
        if best is not None:
            arrays["best"] = best.best_weights
            values |= {"best": best.best, "best_of": best.best_epoch}
        self.seconds[self.recipe.phases[phase].name] = time.perf_counter() - started
        self._save(State(phase, epoch, values, arrays))

    def _continue(self, state: State, trained: keras.Model, best: KeepBest | None) -> None:
        """Give optimizer and callbacks what they had after the epoch of a state."""
        assign(optimizer_variables(trained.optimizer), state.arrays["optimizer"])
        if best is not None:
            best.best, best.best_epoch = tuple(state.values["best"]), state.values["best_of"]
            best.best_weights = state.arrays["best"]

    def _is_settled(self, phase: Phase) -> bool:
        """Whether no epoch could be kept, since the head is right about the validation images."""
        num_images = len(self.data.validation or ())
        accuracy = self.val_accuracy
        if accuracy is None or least_worth_keeping(accuracy, num_images) < 1:
            self.val_accuracy = None  # about to change
            return False
        self.best_epoch[phase.name] = 0
        if self.verbose:
            say(
                f"{phase.name}: not trained. The head is right about {accuracy:.1%} of "
                f"{num_images} validation images; nothing could be better by a standard error."
            )
        return True

    @contextlib.contextmanager
    def _standard_targets(self, *, begun: bool) -> Iterator[None]:
        """Have the head of a regression answer in standard units while a phase trains.

        Args:
            begun: whether it does already, as of a checkpoint of the phase.
        """
        if self.recipe.task != "regression":
            yield
            return
        mean, deviation = self._scale
        if not begun:
            rescale_outputs(self.model, 1 / deviation, -mean / deviation)
        try:
            yield
        finally:
            rescale_outputs(self.model, deviation, mean)

    @property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the targets of the training images, each `(num_targets,)`."""
        labels = self.data.train.labels
        deviation = labels.std(0)
        return labels.mean(0), np.where(deviation > 0, deviation, 1).astype("float32")

    def _standard(self, batches: Any) -> Any:
        """Return batches with the targets of a regression in standard units, others as they are."""
        if self.recipe.task != "regression":
            return batches
        mean, deviation = self._scale
        return batches.map(lambda images, values: (images, (values - mean) / deviation))

    def _worth_keeping(self, trained: keras.Model, validation: Any) -> dict[str, Any]:
        """Return what epochs are judged by, and what they have to be above by a standard error.

        Of several labels an image counts by its share of labels told rightly, of numbers by its
        squared error.
        """
        if self.recipe.task == "classification":
            return {}
        parts = [
            image_scores(np.asarray(labels), trained.predict_on_batch(inputs), self.recipe.task)
            for inputs, labels in validation
        ]
        scores = np.concatenate(parts).astype("float64")
        least = float(scores.mean() + scores.std() / len(scores) ** 0.5)
        if self.recipe.task == "multi_label":
            return {"score": lambda logs: float(logs["val_binary_accuracy"]), "least": least}
        return {"score": lambda logs: -float(logs["val_loss"]), "least": least}

    def _measured(self, embeddings: Embeddings) -> dict[str, float]:
        """Return loss and accuracy of the head on embeddings."""
        head = self.model.get_layer("head")
        probabilities = np.asarray(head(embeddings.x))
        if self.recipe.task == "multi_label":
            return label_measures(embeddings.y, probabilities)
        if self.recipe.task == "regression":
            gaps = (probabilities - embeddings.y) / self._scale[1]
            return {
                "loss": float((gaps**2).mean()), "mean_absolute_error": float(np.abs(gaps).mean())
            }  # fmt: skip
        right = probabilities[np.arange(len(embeddings.y)), embeddings.y]
        return {
            "loss": float(-np.log(np.maximum(right, 1e-7)).mean()),
            "accuracy": float((probabilities.argmax(1) == embeddings.y).mean()),
        }

    def _inputs(self, phase: Phase, start_epoch: int) -> tuple[keras.Model, Any, Any]:
        """Return what trains, its training batches, and its validation batches or None."""
        recipe, data = self.recipe, self.data
        if self.store is not None:
            stored = store_phase(
                self.model, data, recipe, depth=phase.freeze_depth, epochs=phase.epochs,
                start_epoch=start_epoch, dtype="float16", store=self.store, engine=self.engine,
                report=self.report,
            )  # fmt: skip
            if stored is not None:
                held_out = stored.validation
                return (
                    stored.suffix,
                    self._standard(stored.train),
                    None if held_out is None else self._standard(held_out),
                )
        size = image_size_of(self.model)
        augmentation = dataclasses.replace(
            AUGMENTATIONS[recipe.augmentation], mixup_alpha=recipe.mixup_alpha
        )
        train = data.train.batches(
            size, recipe.batch_size, shuffle=True, seed=recipe.seed, epochs=phase.epochs,
            start_epoch=start_epoch, augmentation=augmentation, one_hot=True,
        )  # fmt: skip
        train = self._standard(train)
        if data.validation is None or not len(data.validation):
            return self.model, train, None
        held_out = data.validation.batches(size, recipe.batch_size, one_hot=True)
        return self.model, train, self._standard(held_out)

    def finish(self) -> keras.callbacks.History:
        """Compile for the user's own `evaluate` and `fit`, and gather the history."""
        self._compile(self.recipe.phases[-1].learning_rate or 1e-3)
        history = keras.callbacks.History()
        history.set_model(self.model)
        names = {name: None for row in self.rows for name in row}
        history.history = {name: [row.get(name) for row in self.rows] for name in names}
        history.epoch = list(range(len(self.rows)))
        history.seconds = self.seconds
        history.best_epoch = self.best_epoch
        history.store = self.report
        return history

    def _compile(self, learning_rate: float) -> None:
        rate: dict[str, Any] = {"learning_rate": learning_rate, "layer_decay": 1.0}
        with self.model.distribute_strategy.scope():
            optimizer = layerwise_optimizer(self.model, "adamw", **rate)
            optimizer.build(self.model.trainable_variables)
            task, num_outputs = self.recipe.task, self.model.output_shape[-1]
            self.model.compile(optimizer, LOSSES[task], metrics=metrics_of(task, num_outputs))

    def _loss(self, **how: Any) -> keras.losses.Loss:
        return phase_loss(self.recipe.task, self.recipe.label_smoothing, **how)

    def _compile_phase(self, trained: keras.Model, phase: Phase, steps: int) -> None:
        schedule = schedule_of(phase, steps * phase.epochs)
        # A step over embeddings takes less than the call that makes it, so a call makes many.
        many = len(trained.inputs[0].shape) == 2
        with self.model.distribute_strategy.scope():
            trained.compile(
                phase_optimizer(self.model, phase, schedule),
                loss=self._loss(),
                metrics=phase_metrics(self.recipe.task),
                steps_per_execution=steps if many else 1,
            )
            # Left to `fit`, the slots are made while its graph is traced: seconds longer.
            trained.optimizer.build(trained.trainable_variables)


def schedule_of(phase: Phase, total_steps: int) -> Any:
    """Return the learning rate of a phase over its steps, as a Keras schedule or a float."""
    warmup_steps = round(phase.warmup * total_steps)
    peak = phase.learning_rate
    if phase.schedule == "constant":
        return peak
    if phase.schedule == "step":
        boundaries = [round(share * total_steps) for share in (0.3, 0.6, 0.9)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            boundaries, [peak, peak / 10, peak / 100, peak / 1000]
        )
    start = peak / 25 if phase.schedule == "one_cycle" else 0.0
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(peak, max(1, total_steps))
    return keras.optimizers.schedules.CosineDecay(
        start, max(1, total_steps - warmup_steps), warmup_target=peak, warmup_steps=warmup_steps
    )


def fit_head(model: keras.Model, parts: Sequence[Embeddings], num_views: int, seed: int) -> None:
    """Fit a probe and give the head its scores; a class without images is never answered.

    Several labels get a probe each, numbers a ridge regression.

    Args:
        model: its layer `head` is set.
        parts: embeddings of different images, each with all first views before all second ones.
        num_views: of each image.
        seed: of the folds.
    """
    groups, first = [], 0
    for _, y in parts:
        num_images = len(y) // num_views
        groups.append(np.tile(np.arange(first, first + num_images), num_views))
        first += num_images
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    task = task_of(model)
    if task != "classification":
        fit = fit_labels if task == "multi_label" else fit_values
        set_linear_head(model, *fit(x, y, np.concatenate(groups), seed))
        return
    probe = SoftmaxProbe(seed=seed).fit(x, y, np.concatenate(groups))
    set_linear_head(model, *head_weights(probe, model.output_shape[-1]))
