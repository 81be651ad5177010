"""Trains the phases of a recipe: first the head, then the open stages."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kerastl._checks import check_int, check_tensorflow
from kerastl._task import check_supports, find_task
from kerastl.data.load import ImageData
from kerastl.distribute import check_accumulation, num_replicas
from kerastl.errors import ArgumentError, DataError
from kerastl.frozen.runtime import StoreChoice, open_runtime
from kerastl.machines import broadcast_json, is_chief, raise_on_lost_worker
from kerastl.model.freeze import stages
from kerastl.model.head_names import STAGES
from kerastl.model.heads import check_linear_head, forget_settings, head_of, task_of
from kerastl.model.kept_rules import check_channels, remember_rules
from kerastl.model.kept_words import origin_of
from kerastl.model.recipe_changes import with_epochs
from kerastl.model.recipes import Recipe, make_recipe, scenario_by_count
from kerastl.training.objective import Callbacks, check_objective
from kerastl.training.phases import fit_probe_head
from kerastl.training.training import Training


def fine_tune(
    model: keras.Model,
    data: ImageData,
    *,
    recipe: Recipe | str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    callbacks: Callbacks = None,
    loss: Any = None,
    metrics: Any = (),
    class_weight: Mapping[int | str, float] | None = None,
    log_dir: str | Path | None = None,
    checkpoints: str | Path | None = None,
    store: StoreChoice = "default",
    engine: str = "auto",
    verbose: bool = True,
) -> keras.callbacks.History:
    """Train a model with a recipe: first the head, then the open stages (LP-FT).

    The head starts from a regularised logistic regression on the embeddings of the frozen backbone
    (https://arxiv.org/abs/2202.10054); then the stages above the freeze depth train at rates that
    fall towards the input. BatchNormalization stays frozen throughout. If there are validation
    images, a phase keeps the weights of its best epoch, but only if kerastl expects them to be
    better on new images; otherwise it keeps the weights from before the phase.

    With several labels per image, the head starts from one logistic regression per label, and
    epochs are compared by the mean share of correct labels. For numbers it starts from ridge
    regression, and epochs are compared by the squared error.
    For regression, phases that train by gradients use standardised targets (zero mean and unit
    variance over the training images), so that all targets have the same weight and learning rates
    do not depend on units. The history is in these units; the head is scaled back at the end of
    each phase.

    The devices are those of the strategy of the model (`build_transfer_model(strategy=)`). With
    several machines, call the function on each machine; all machines end with the same weights, and
    only the chief writes files.

    Args:
        model: a model of `build_transfer_model`; changed in place, and compiled afterwards.
        data: the result of `load_data`, with the number of classes and the task of the model.
        recipe: a `Recipe`, the name of a scenario or published recipe, or `None` for a scenario
            based on the number of images.
        epochs: epochs of each phase that trains by gradients. Default: the recipe's.
        batch_size: images per step. Default: the recipe's.
        callbacks: as for `fit`. Each phase that trains by gradients gets a copy, because callbacks
            have state; you can also pass a function that takes a `Phase` and returns new callbacks.
        loss: as for `compile`, for one-hot labels and probabilities, in the phases that train by
            gradients. Default: the loss of the task.
        metrics: as for `compile`, in addition to the metrics of the task, in the same phases.
        class_weight: weights of the classes, by number or name; other classes have weight 1. They
            replace the `balance` of the recipe: in a head that is fitted in closed form, in the
            loss (also in your own), and in the decision about fine-tuning.
        log_dir: folder for TensorBoard logs.
        checkpoints: folder for the state of the training after each epoch; needs twice 3 to 4 times
            the size of the weights. The same call with the same model, data, recipe and versions
            continues from there, and its result is the same as without a stop; a different call
            raises an error. Your own callbacks get back the counters that Keras uses (`best`,
            `wait`, ...). Default: no checkpoints.
        store: where the outputs of frozen stages are stored: an `ActivationStore`, `"default"` for
            the store in `KERASTL_CACHE_DIR`, or None to run the stages in each epoch.
        engine: the engine for the frozen stages: `"auto"`, `"tensorflow"`, `"openvino"` or
            `"litert"`.
        verbose: show progress on stderr.

    Returns:
        A `keras.callbacks.History` of all phases. Its `history` has one entry per epoch: `phase`,
        `loss`, `accuracy` and, with validation images, `val_loss` and `val_accuracy`; for several
        labels `binary_accuracy`, for regression `mean_absolute_error` instead of `accuracy`.
        `seconds`
        maps each phase to its time; `best_epoch` maps it to the epoch that was kept (0: the state
        before the phase);
        `store` is the `StoreUsage` of all phases.

    Raises:
        ArgumentError: the model and the data do not match.
        DataError: there are no training images, or `checkpoints` belong to a different training.
        TrainingError: the loss is NaN or infinite (the model then has the weights of the last good
            epoch), another machine was lost, or a checkpoint cannot be written.

    Example:
        >>> history = kerastl.fine_tune(model, data, recipe="large_similar")
        >>> history.history["val_accuracy"][-1]
    """
    check_tensorflow("`fine_tune`")
    own = check_objective(model, data, callbacks, loss, metrics, class_weight)
    changes = {"epochs": epochs, "batch_size": batch_size}
    recipe = checked_recipe(recipe, model, data, **changes)
    own.check_recipe(recipe)
    remember_rules(model, data.train.source.rules)
    forget_settings(model)
    keras.utils.set_random_seed(recipe.seed)
    chief = is_chief(model.distribute_strategy)
    training = Training(
        model,
        data,
        recipe,
        open_runtime(store, engine, recipe.batch_size, model.distribute_strategy),
        own=own,
        log_dir=Path(log_dir) if log_dir and chief else None,
        verbose=verbose and chief,
    )
    with raise_on_lost_worker():
        training.resume(checkpoints)
        for phase in training.phases_left():
            if phase.method == "probe":
                training.fit_head(phase)
            else:
                training.train_stages(phase)
    return training.finish()


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
    splits = [split for split in (data.train, data.validation) if split is not None and len(split)]
    fit_probe_head(model, splits, recipe, open_runtime(store, engine, recipe.batch_size))


def checked_recipe(
    recipe: Recipe | str | None,
    model: keras.Model,
    data: ImageData,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> Recipe:
    """Return the recipe to train by, on all devices of the model.

    Raises:
        ArgumentError: model, data and recipe do not fit each other.
        DataError: there are no training images.
    """
    num_names = task_of(model).num_names(model.output_shape[-1])
    if num_names != data.num_classes:
        raise ArgumentError(
            f"The model has {num_names} classes, the data has "
            f"{data.num_classes}: {data.class_names}. Build the model with "
            f"num_classes={data.num_classes}."
        )
    _check_task(task_of(model).name, data.task, "the model", f"Build it with task={data.task!r}.")
    if len(data.train) == 0:
        raise DataError("There are no training images. Lower `validation_fraction`.")
    check_channels(model, data.train)
    recipe = resolve_recipe(recipe, model, data)
    if epochs is not None:
        recipe = with_epochs(recipe, check_int("epochs", epochs, 1))
    if batch_size is not None:
        recipe = dataclasses.replace(recipe, batch_size=batch_size)
    shape = data.train.source.rules.resize
    if recipe.resize not in (None, shape):
        raise ArgumentError(
            f"The recipe is for images with resize={recipe.resize!r}. Received: data with "
            f"resize={shape!r}. Load the data with `load_data(..., "
            f"resize={recipe.resize!r})`."
        )
    own = find_task(data.task).augmentation
    also = f", augmentation={own!r}" if own else ""
    change = f"Use `dataclasses.replace(recipe, task={data.task!r}{also})`."
    _check_task(recipe.task, data.task, "the recipe", change)
    if num_replicas(model) > 1:
        check_supports(data.task, "devices")
        check_accumulation(recipe.accumulate, model)
        recipe = _shared_by_all(recipe, model, data)
    if recipe.cut not in (None, origin_of(model).cut):
        raise ArgumentError(
            f"The recipe puts the head on stage {recipe.cut} of the backbone, but the model "
            f"was not built this way. Use `build_transfer_model(..., cut={recipe.cut})`, or "
            "a recipe without a cut."
        )
    if recipe.head == STAGES != head_of(model):
        raise ArgumentError(
            "The head of the recipe reads all stages, but the model was not built this way. "
            "Use `build_transfer_model(..., head='stages')`, or a recipe with "
            "head='linear'."
        )
    if any(phase.method == "probe" for phase in recipe.phases):
        check_linear_head(model)
    return recipe


def _check_task(task: str, of_data: str, whose: str, advice: str) -> None:
    if task != of_data:
        raise ArgumentError(
            f"The task of {whose} must be that of the data, {of_data!r}. Received: {task!r}. "
            f"{advice}"
        )


def _shared_by_all(recipe: Recipe, model: keras.Model, data: ImageData) -> Recipe:
    """Return the chief's recipe.

    Raises:
        DataError: another machine reads other images than the chief.
    """
    said = broadcast_json(
        model.distribute_strategy, {"recipe": recipe.to_dict(), "data": data.fingerprint()}
    )
    if said["data"] != data.fingerprint():
        raise DataError(
            "This machine reads different images than the first machine. Use the same "
            "images, in the same folders, and the same seed on every machine."
        )
    return Recipe.from_dict(said["recipe"])


def resolve_recipe(
    recipe: Recipe | str | None, model: keras.Model, data: ImageData, **changes: Any
) -> Recipe:
    """Return the recipe with this name, or the default recipe, for this model and data.

    Args:
        recipe: a `Recipe`, which is returned as it is; a name, or None for that by the number.
        model: of `build_transfer_model`.
        data: of `load_data`.
        **changes: fields of the recipe that are decided already.
    """
    if isinstance(recipe, Recipe):
        return recipe
    changes.setdefault("task", data.task)
    changes.setdefault("head", head_of(model))
    if recipe is None:
        recipe, changes["reason"] = scenario_by_count(len(data.train), data.num_classes, data.task)
    return make_recipe(
        recipe,
        num_stages=len(stages(model)),
        num_images=len(data.train),
        num_classes=data.num_classes,
        **changes,
    )
