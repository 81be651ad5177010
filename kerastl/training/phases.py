"""Trains one phase, in `fine_tune` and in a trial: head, batches and epochs."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from kerastl._task import Task, find_task
from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import ImageData
from kerastl.data.split import Split
from kerastl.distribute import num_replicas
from kerastl.frozen.activations import Embeddings, extract_embeddings
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runtime import FrozenRuntime
from kerastl.model.freeze import inference_below
from kerastl.model.heads import fold_affine_into_head, set_linear_head, task_of
from kerastl.model.optimizers import phase_optimizer
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.loop import SharedLoop
from kerastl.training.objective import Objective
from kerastl.training.stored import PhaseBatches, stored_phase


def fit_probe_head(
    model: keras.Model,
    splits: Sequence[Split],
    recipe: Recipe,
    runtime: FrozenRuntime,
    own: Objective = Objective(),  # noqa: B008  # frozen
) -> list[Embeddings]:
    """Fit the head in one go to embeddings of the frozen backbone; return those of each split.

    Where the recipe flips, mirrored views follow all the others of their split. `own` may have
    weights of classes.
    """
    flipped = AUGMENTATIONS[recipe.augmentation].flip
    parts = [extract_embeddings(model, one, flipped=flipped, runtime=runtime) for one in splits]
    images = np.split(np.arange(sum(map(len, splits))), np.cumsum([*map(len, splits)])[:-1])
    groups = np.concatenate([np.tile(some, 1 + flipped) for some in images])
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    num_outputs = model.output_shape[-1]
    task = task_of(model)
    kernel, bias = task.fit_head(x, y, groups, seed=recipe.seed, num_outputs=num_outputs)
    class_weight = own.class_weights(recipe, y, num_outputs)
    if class_weight is not None:
        # Probabilities under other shares of the classes are those fitted, times the weights
        # (https://arxiv.org/abs/2007.07314).
        weights = [class_weight[number] for number in range(num_outputs)]
        bias = bias + np.log(np.maximum(weights, keras.config.epsilon())).astype(bias.dtype)
    set_linear_head(model, kernel, bias)
    return parts


def phase_batches(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    phase: Phase,
    runtime: FrozenRuntime,
    start_epoch: int = 0,
) -> PhaseBatches:
    """Return what trains in a phase and its batches, of stored activations where possible.

    `start_epoch` epochs of the phase were trained before.
    """
    if runtime.store is not None:
        stored = stored_phase(model, data, recipe, phase, runtime, start_epoch=start_epoch)
        if stored is not None:
            return stored
    size = image_size_of(model)
    augmentation = dataclasses.replace(
        AUGMENTATIONS[recipe.augmentation], mixup_alpha=recipe.mixup_alpha
    )
    train = data.train.batches(
        size, recipe.batch_size, shuffle=True, seed=recipe.seed, epochs=phase.epochs,
        start_epoch=start_epoch, augmentation=augmentation, one_hot=True,
    )  # fmt: skip
    if data.validation is None or not len(data.validation):
        return PhaseBatches(model, train, None)
    return PhaseBatches(
        model, train, data.validation.batches(size, recipe.batch_size, one_hot=True)
    )


class CompiledPhase(NamedTuple):
    """A network that is ready to train: a part of `model`, by `loop` where it has several devices.

    An epoch has `steps` steps; `class_weight` is as `fit` takes it.
    """

    model: keras.Model
    network: keras.Model
    loop: SharedLoop | None
    steps: int
    class_weight: dict[int, float] | None = None

    def evaluate(self, batches: Any) -> dict[str, float]:
        """Return the loss and the metrics on batches."""
        if self.loop is not None:
            return self.loop.evaluate(batches)
        measures: dict[str, float] = self.network.evaluate(batches, verbose=0, return_dict=True)
        return measures


def compile_phase(
    model: keras.Model,
    network: keras.Model,
    recipe: Recipe,
    phase: Phase,
    labels: np.ndarray,
    own: Objective = Objective(),  # noqa: B008  # frozen
    *,
    in_one_call: bool = False,
) -> CompiledPhase:
    """Compile a network of a model, which is frozen for the phase already.

    Args:
        model: of `build_transfer_model`.
        network: what trains.
        recipe: gives task, batch size and label smoothing.
        phase: gives optimizer and rates.
        labels: of the training images.
        own: a loss, metrics and weights of classes in place of the task's and the recipe's.
        in_one_call: run an epoch over embeddings, whose steps take less than the calls that make
            them, in one call; callbacks are then called once an epoch.
    """
    steps = math.ceil(len(labels) / recipe.batch_size)
    class_weight = own.class_weights(recipe, labels, model.output_shape[-1])
    many = in_one_call and len(network.inputs[0].shape) == 2
    task, smoothing = find_task(recipe.task), recipe.label_smoothing
    with model.distribute_strategy.scope():
        network.compile(
            phase_optimizer(
                model, phase, schedule_of(phase, steps * phase.epochs), recipe.accumulate
            ),
            loss=task.phase_loss(smoothing) if own.loss is None else own.loss,
            metrics=[*task.phase_metrics(), *own.fresh_metrics()],
            steps_per_execution=steps if many else 1,
        )
    loop = SharedLoop(network, class_weight) if num_replicas(model) > 1 else None
    return CompiledPhase(model, network, loop, steps, class_weight)


@contextlib.contextmanager
def standardised_outputs(
    model: keras.Model, task: Task, labels: np.ndarray, *, begun: bool = False
) -> Iterator[None]:
    """Have the head answer in standard units while a phase trains, where the task has some.

    `labels` are those of the training images; `begun` says that the head does already, as of a
    checkpoint of the phase.
    """
    if (scale := task.target_scale(labels)) is None:
        yield
        return
    mean, deviation = scale
    if not begun:
        fold_affine_into_head(model, 1 / deviation, -mean / deviation)
    try:
        yield
    finally:
        fold_affine_into_head(model, deviation, mean)


def standardised_targets(task: Task, labels: np.ndarray, batches: Any) -> Any:
    """Return batches with targets in standard units, where the task has some."""
    scale = task.target_scale(labels)
    if scale is None or batches is None:
        return batches
    mean, deviation = scale
    return batches.map(lambda images, values: (images, (values - mean) / deviation))


def run_epochs(
    compiled: CompiledPhase,
    phase: Phase,
    train: Any,
    validation: Any,
    callbacks: Sequence[keras.callbacks.Callback],
    initial_epoch: int = 0,
) -> None:
    """Train the epochs of a phase from `initial_epoch` on, the frozen stages in inference mode."""
    network, loop, steps = compiled.network, compiled.loop, compiled.steps
    with inference_below(compiled.model, phase.freeze_depth):
        if loop is not None:
            loop.fit(
                train, epochs=phase.epochs, steps=steps, validation=validation,
                initial_epoch=initial_epoch, callbacks=callbacks,
            )  # fmt: skip
        else:
            network.fit(
                train, epochs=phase.epochs, steps_per_epoch=steps, validation_data=validation,
                initial_epoch=initial_epoch, callbacks=list(callbacks), shuffle=False, verbose=0,
                class_weight=compiled.class_weight,
            )  # fmt: skip


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
