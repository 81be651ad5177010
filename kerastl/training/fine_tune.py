"""The phases of a recipe, one after another: first the head, then the rest."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kerastl._checks import check_int, check_tensorflow
from kerastl._task import find_task
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
    """Train a model by a recipe: first the head, then the open stages (LP-FT).

    The head starts from a regularised logistic regression on the embeddings of the frozen backbone
    (https://arxiv.org/abs/2202.10054); then the stages above the freeze depth train at rates that
    fall towards the input. BatchNormalization stays frozen throughout. If there are validation
    images, a phase keeps the weights of its best epoch, but only if these raise the validation
    accuracy by more than a standard error; otherwise the weights from before the phase are kept.

    With several labels per image, the head starts from one logistic regression per label, and
    epochs are compared by the mean share of correct labels. For numbers it starts from ridge
    regression, and epochs are compared by the squared error.
    The phases that train numbers by gradients see targets of zero mean and unit deviation over the
    training images, so that several weigh alike and rates mean the same whatever the unit; their
    history is in these units, and the head is scaled back at their ends.

    The devices are those of the model's strategy (`build_transfer_model(strategy=)`). Over several
    machines each makes the same call; all end with the same weights, and the chief alone writes.

    Args:
        model: a model of `build_transfer_model`; changed in place, and compiled afterwards.
        data: of `load_data`, with as many classes as the model, and of its task.
        recipe: a `Recipe`, a scenario or published recipe by name, or `None` for the scenario
            that the number of images suggests.
        epochs: of each phase that trains by gradients; default: the recipe's.
        batch_size: images a step; default: the recipe's.
        callbacks: as `fit` takes them, of which each phase that trains by gradients gets a copy,
            since they keep state; or a function from a `Phase` to new ones for it.
        loss: as `compile` takes it, of one-hot labels and probabilities, for the phases that train
            by gradients. Default: the task's.
        metrics: as `compile` takes them, beside the task's, likewise.
        class_weight: how much images of a class count, by its number or its name; 1 for a class
            that is left out. They take the place of the recipe's `balance`: in the head that is
            fitted in one go, in the loss (also in yours), and in the decision what a phase keeps.
        log_dir: folder for TensorBoard logs.
        checkpoints: folder that keeps where the training stands after each epoch, 3 to 4 times the
            size of the weights, twice. The same call takes up what is there and, with the same
            model, data, recipe and versions, ends as if it had not been stopped; another one is
            refused. Callbacks of your own get back what Keras' count (`best`, `wait`, ...).
            Default: nothing is kept.
        store: where the outputs of frozen stages are kept: an `ActivationStore`, `"default"` for
            that of `KERASTL_CACHE_DIR`, or None to run them in each epoch.
        engine: what runs the frozen stages: `"auto"`, `"tensorflow"`, `"openvino"` or `"litert"`.
        verbose: show progress on stderr.

    Returns:
        A `keras.callbacks.History` over all phases. Its `history` has, an entry an epoch: `phase`,
        `loss`, `accuracy` and, with validation images, `val_loss` and `val_accuracy`; of several
        labels `binary_accuracy`, of numbers `mean_absolute_error` in place of `accuracy`. `seconds`
        maps each phase to its time; `best_epoch` maps it to the epoch kept (0: as before);
        `store` is the `StoreUsage` of all phases.

    Raises:
        ArgumentError: model and data do not fit each other.
        DataError: there are no training images, or `checkpoints` are of another training.
        TrainingError: the loss is no longer a number; the weights are those of the last good epoch.
            Another machine was lost, or a checkpoint could not be written.

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
    if model.output_shape[-1] != data.num_classes:
        raise ArgumentError(
            f"The model tells {model.output_shape[-1]} classes apart, the data has "
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
            f"The recipe is for images of resize={recipe.resize!r}. Received: data of "
            f"resize={shape!r}. Load them by `load_data(..., resize={recipe.resize!r})`."
        )
    own = find_task(data.task).augmentation
    also = f", augmentation={own!r}" if own else ""
    change = f"Use `dataclasses.replace(recipe, task={data.task!r}{also})`."
    _check_task(recipe.task, data.task, "the recipe", change)
    if num_replicas(model) > 1:
        check_accumulation(recipe.accumulate, model)
        recipe = _shared_by_all(recipe, model, data)
    if recipe.cut not in (None, origin_of(model).cut):
        raise ArgumentError(
            f"The recipe puts the head on stage {recipe.cut} of the backbone; the model was not "
            f"built so. Use `build_transfer_model(..., cut={recipe.cut})`, or a recipe without cut."
        )
    if recipe.head == STAGES != head_of(model):
        raise ArgumentError(
            "The recipe's head reads all stages; the model was not built so. Use "
            "`build_transfer_model(..., head='stages')`, or a recipe of head='linear'."
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
            "This machine reads other images than the first one. Give every machine the same "
            "images, in the same folders, and the same seed."
        )
    return Recipe.from_dict(said["recipe"])


def resolve_recipe(
    recipe: Recipe | str | None, model: keras.Model, data: ImageData, **changes: Any
) -> Recipe:
    """Return the recipe that a name, or nothing, stands for, on this model and data.

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
