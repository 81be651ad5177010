"""The phases of a recipe, one after another: first the head, then the rest."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastl.advice.probe import SoftmaxProbe, head_weights
from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import ImageData
from kerastl.distribute import (
    check_shares,
    even_batches,
    num_replicas,
    steps_an_epoch,
)
from kerastl.errors import ArgumentError, DataError
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
from kerastl.model.heads import check_linear_head, set_linear_head
from kerastl.model.optimizers import layerwise_optimizer, phase_optimizer
from kerastl.model.recipes import Phase, Recipe, make_recipe, scenario_by_count
from kerastl.training.callbacks import (
    HeldOut,
    KeepBest,
    PhaseProgress,
    StopOnNonFinite,
    least_worth_keeping,
    say,
    say_epoch,
    tensorboard,
)
from kerastl.training.stored import store_phase


def fine_tune(
    model: keras.Model,
    data: ImageData,
    *,
    recipe: Recipe | str | None = None,
    callbacks: Callable[[Phase], Sequence[keras.callbacks.Callback]] | None = None,
    log_dir: str | Path | None = None,
    store: StoreChoice = "default",
    engine: str = "auto",
    verbose: bool = True,
) -> keras.callbacks.History:
    """Train a model by a recipe: first the head, then the open stages (LP-FT).

    The head starts from a regularised logistic regression on the embeddings of the frozen backbone
    (https://arxiv.org/abs/2202.10054); then the stages above the freeze depth train at rates that
    fall towards the input. BatchNormalization stays frozen throughout. Where there are validation
    images, what `fit` learnt in a phase is kept, as of its best epoch, only when it raises the
    accuracy on them by more than a standard error.

    Args:
        model: a model of `build_transfer_model`; changed in place, and compiled afterwards.
        data: of `load_data`, with as many classes as the model.
        recipe: a `Recipe`, a scenario or published recipe by name, or `None` for the scenario
            that the number of images suggests.
        callbacks: from a `Phase` to new callbacks for it (callbacks keep state, so each phase
            needs its own).
        log_dir: folder for TensorBoard logs.
        store: where the outputs of frozen stages are kept: an `ActivationStore`, `"default"` for
            that of `KERASTL_CACHE_DIR`, or None to run them in each epoch.
        engine: what runs the frozen stages: `"auto"`, `"tensorflow"`, `"openvino"` or `"litert"`.
        verbose: show progress on stderr.

    Returns:
        A `keras.callbacks.History` over all phases. Its `history` has, an entry an epoch: `phase`,
        `loss`, `accuracy` and, with validation images, `val_loss` and `val_accuracy`. `seconds`
        maps each phase to its time; `best_epoch` maps it to the epoch kept (0: as before);
        `store` is the `StoreReport` of all phases.

    Raises:
        ArgumentError: model and data do not fit each other.
        TrainingError: the loss is no longer a number; the weights are those of the last good epoch.

    Example:
        >>> history = kerastl.fine_tune(model, data, recipe="large_similar")
        >>> history.history["val_accuracy"][-1]
    """
    if model.output_shape[-1] != data.num_classes:
        raise ArgumentError(
            f"The model tells {model.output_shape[-1]} classes apart, the data has "
            f"{data.num_classes}: {data.class_names}. Build the model with "
            f"num_classes={data.num_classes}."
        )
    if len(data.train) == 0:
        raise DataError("There are no training images. Lower `validation_fraction`.")
    recipe = _shareable(resolve_recipe(recipe, model, data), len(data.train), num_replicas(model))
    if recipe.cut not in (None, getattr(model, "cut", None)):
        raise ArgumentError(
            f"The recipe puts the head on stage {recipe.cut} of the backbone; the model was not "
            f"built so. Use `build_transfer_model(..., cut={recipe.cut})`, or a recipe without cut."
        )
    if any(phase.method == "probe" for phase in recipe.phases):
        check_linear_head(model)
    keras.utils.set_random_seed(recipe.seed)
    logs = Path(log_dir) if log_dir else None
    run = _Run(model, data, recipe, callbacks, logs, store, engine, verbose)
    for phase in recipe.phases:
        started = time.perf_counter()
        (run.fit_probe if phase.method == "probe" else run.fit_gradient)(phase)
        run.seconds[phase.name] = time.perf_counter() - started
    return run.finish()


def is_head_only(recipe: Recipe, history: keras.callbacks.History) -> bool:
    """Return whether all that a recipe left behind is a probe on the frozen backbone.

    Either it trains no more than that, or no epoch of what it trained besides was worth keeping.
    """
    first, *others = recipe.phases
    return first.method == "probe" and not any(history.best_epoch[p.name] for p in others)


def refit_head(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    *,
    store: StoreChoice = "default",
    engine: str = "auto",
) -> None:
    """Fit the head again where `is_head_only`, on training and validation images together.

    Once the validation images have given their measure, a head has more use for them as training
    images. Nothing is chosen by them any more, and the backbone is untouched.
    """
    flipped = AUGMENTATIONS[recipe.augmentation].flip
    how: dict[str, Any] = {"batch_size": recipe.batch_size, "store": store, "engine": engine}
    parts = [
        extract_embeddings(model, split, flipped=flipped, **how)
        for split in (data.train, data.validation)
        if split is not None and len(split)
    ]
    _fit_head(model, parts, 1 + flipped, recipe.seed)


def _shareable(recipe: Recipe, num_images: int, replicas: int) -> Recipe:
    """Return the recipe with a batch size that divides by the replicas, saying so if it changed."""
    batch_size = check_shares(recipe.batch_size, num_images, replicas)
    if batch_size != recipe.batch_size:
        say(
            f"Batches of {batch_size} images, not {recipe.batch_size}, so that {replicas} devices "
            "share them evenly."
        )
    return dataclasses.replace(recipe, batch_size=batch_size)


def resolve_recipe(recipe: Recipe | str | None, model: keras.Model, data: ImageData) -> Recipe:
    """Return the recipe that a name, or nothing, stands for, on this model and data."""
    if isinstance(recipe, Recipe):
        return recipe
    changes: dict[str, Any] = {}
    if recipe is None:
        recipe, changes["reason"] = scenario_by_count(len(data.train), data.num_classes)
    return make_recipe(
        recipe,
        num_stages=len(stages(model)),
        num_images=len(data.train),
        num_classes=data.num_classes,
        **changes,
    )


@dataclass
class _Run:
    """What the phases of one `fine_tune` share."""

    model: keras.Model
    data: ImageData
    recipe: Recipe
    callbacks: Callable[[Phase], Sequence[keras.callbacks.Callback]] | None
    log_dir: Path | None
    store: StoreChoice
    engine: str
    verbose: bool
    report: StoreReport = field(default_factory=StoreReport)
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    best_epoch: dict[str, int] = field(default_factory=dict)
    val_accuracy: float | None = None  # of the weights as they are, where a probe was measured

    def fit_probe(self, phase: Phase) -> None:
        """Fit the head in one go to embeddings of the frozen backbone."""
        started = time.perf_counter()
        freeze_to(self.model, len(stages(self.model)))
        how: dict[str, Any] = {
            "batch_size": self.recipe.batch_size,
            "store": self.store,
            "engine": self.engine,
            "report": self.report,
        }
        flipped = AUGMENTATIONS[self.recipe.augmentation].flip
        train = extract_embeddings(self.model, self.data.train, flipped=flipped, **how)
        _fit_head(self.model, [train], 1 + flipped, self.recipe.seed)
        row = self._measured(train)
        held_out = self.data.validation
        if held_out is not None and len(held_out):
            validation = extract_embeddings(self.model, held_out, **how)
            row |= {f"val_{name}": value for name, value in self._measured(validation).items()}
            self.val_accuracy = row["val_accuracy"]
        self.rows.append({"phase": phase.name, **row})
        self.best_epoch[phase.name] = 1
        if self.verbose:
            say_epoch(phase.name, 1, row, time.perf_counter() - started)

    def fit_gradient(self, phase: Phase) -> None:
        """Train the head and the stages above the freeze depth by `fit`, if that could help."""
        if self._is_settled(phase):
            return
        freeze_to(self.model, phase.freeze_depth)
        if phase.train_batch_norm:
            open_batch_normalization(self.model)
        replicas = num_replicas(self.model)
        steps = steps_an_epoch(len(self.data.train), self.recipe.batch_size, replicas)
        trained, train, validation = self._inputs(phase)
        self._compile_phase(trained, phase, steps)
        watch: list[keras.callbacks.Callback] = [StopOnNonFinite(phase.name, phase.learning_rate)]
        best = None
        if validation is not None:
            if replicas > 1:
                held_out = HeldOut(trained, validation, replicas)
                watch.append(held_out)
                before, validation = held_out.measure(), None
            else:
                before = trained.evaluate(validation, verbose=0, return_dict=True)
            num_images = len(self.data.validation or ())
            best = KeepBest(before, num_images, self.recipe.patience)
            watch.append(best)
        progress = PhaseProgress(phase.name, steps * phase.epochs)
        if self.verbose:
            watch.append(progress)
        watch += tensorboard(self.log_dir, phase.name)
        with inference_below(self.model, phase.freeze_depth), contextlib.closing(progress):
            history = trained.fit(
                even_batches(train, replicas),
                epochs=phase.epochs,
                steps_per_epoch=steps,
                validation_data=validation,
                callbacks=[*watch, *(self.callbacks(phase) if self.callbacks else ())],
                shuffle=False,
                verbose=0,
            ).history
        num_epochs = len(history["loss"])
        self.best_epoch[phase.name] = best.best_epoch if best else num_epochs
        for epoch in range(num_epochs):
            values = {name: float(series[epoch]) for name, series in history.items()}
            self.rows.append({"phase": phase.name, **values})

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

    def _measured(self, embeddings: Embeddings) -> dict[str, float]:
        """Return loss and accuracy of the head on embeddings."""
        head = self.model.get_layer("head")
        probabilities = np.asarray(head(embeddings.x))
        right = probabilities[np.arange(len(embeddings.y)), embeddings.y]
        return {
            "loss": float(-np.log(np.maximum(right, 1e-7)).mean()),
            "accuracy": float((probabilities.argmax(1) == embeddings.y).mean()),
        }

    def _inputs(self, phase: Phase) -> tuple[keras.Model, Any, Any]:
        """Return what trains, its training batches, and its validation batches or None."""
        recipe, data = self.recipe, self.data
        if self.store is not None:
            stored = store_phase(
                self.model, data, recipe, depth=phase.freeze_depth, epochs=phase.epochs,
                dtype="float16", store=self.store, engine=self.engine, report=self.report,
            )  # fmt: skip
            if stored is not None:
                return stored.suffix, stored.train, stored.validation
        size = image_size_of(self.model)
        augmentation = dataclasses.replace(
            AUGMENTATIONS[recipe.augmentation], mixup_alpha=recipe.mixup_alpha
        )
        train = data.train.batches(
            size, recipe.batch_size, shuffle=True, seed=recipe.seed, epochs=phase.epochs,
            augmentation=augmentation, one_hot=True,
        )  # fmt: skip
        if data.validation is None or not len(data.validation):
            return self.model, train, None
        return self.model, train, data.validation.batches(size, recipe.batch_size, one_hot=True)

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
            self.model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])

    def _compile_phase(self, trained: keras.Model, phase: Phase, steps: int) -> None:
        schedule = schedule_of(phase, steps * phase.epochs)
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=self.recipe.label_smoothing)
        # A step over embeddings takes less than the call that makes it, so a call makes many;
        # under a strategy Keras cannot.
        many = len(trained.inputs[0].shape) == 2 and num_replicas(trained) == 1
        with self.model.distribute_strategy.scope():
            trained.compile(
                phase_optimizer(self.model, phase, schedule),
                loss=loss,
                metrics=["accuracy"],
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


def _fit_head(model: keras.Model, parts: Sequence[Embeddings], num_views: int, seed: int) -> None:
    """Fit a probe and give the head its scores; a class without images is never answered.

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
    probe = SoftmaxProbe(seed=seed).fit(x, y, np.concatenate(groups))
    set_linear_head(model, *head_weights(probe, model.output_shape[-1]))
