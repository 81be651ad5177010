"""Labelled images become a trained, measured and exported model in a run directory."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras

from kerastl._checks import check_tensorflow
from kerastl._steps import say, step
from kerastl._versions import versions
from kerastl.data.classes import UNEVEN
from kerastl.data.load import ImageData, describe_source, load_data
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.distribute import num_replicas, resolve_strategy
from kerastl.errors import ArgumentError, DataError
from kerastl.machines import barrier_at_exit, broadcast_json, is_chief, raise_on_lost_worker
from kerastl.model.recipes import Recipe, with_epochs
from kerastl.results.calibrate import calibrate
from kerastl.results.evaluate import collect_predictions, predictions_of_head
from kerastl.results.evaluation import write_evaluation
from kerastl.results.lineage import backbone_changed_warning, lineage_of
from kerastl.results.model_card import write_card
from kerastl.results.movement import how_far_moved, weights_by_stage
from kerastl.results.predictions import BasePredictions, Predictions
from kerastl.results.report import write_report
from kerastl.results.run_files import Json, RunFiles
from kerastl.results.run_shapes import StageMovement
from kerastl.results.summaries import write_summaries
from kerastl.runs.plan import RunPlan, build_model, decide_plan
from kerastl.runs.run import Run
from kerastl.runs.run_lock import (
    is_finished,
    locked_run_directory,
    mark_done,
    read_plan,
    write_plan,
)
from kerastl.runs.settings import RunSettings
from kerastl.runs.telling import Tell, silent, tell_data, tell_store, teller
from kerastl.serving.export import export_model
from kerastl.training.fine_tune import fine_tune, is_head_only, refit_head


def train(
    data: Any,
    backbone: str | None = None,
    *,
    output: str | Path | None = None,
    test: Any = None,
    weights: str | None = None,
    scenario: str | None = None,
    recipe: Recipe | str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    image_sizes: Sequence[int] | None = None,
    head: str | None = None,
    epochs: int | None = None,
    augmentation: str | None = None,
    balance: str | float | None = None,
    objective: str | None = None,
    seed: int | None = None,
    task: str | None = None,
    precision: str | None = None,
    accumulate: int | None = None,
    on_bad: str = "error",
    options: DataOptions = NO_OPTIONS,
    strategy: Any = None,
    export: bool = True,
    page: bool = True,
    resume: bool = False,
    verbose: bool | Tell = True,
) -> Run:
    """Train a model on labelled images, and write all there is to know of it to a run directory.

    The whole job in one call: the images are read and split, measured against the backbone, and a
    recipe is chosen by that; the model is trained by it, measured on the test images, exported,
    proved to predict the same as exported, and written about in a page (`report.html`) and a model
    card. `kerastl train` is this function as a command.

    A run that was stopped goes on with the same arguments and `resume=True`, and ends as if it had
    not been stopped.

    Args:
        data: what `load_data` takes (a folder, a CSV, an `.npz` file, `"tfds:NAME"`, arrays, a
            `tf.data.Dataset`), or an `ImageData`. There must be test images, or enough images to
            split some off.
        backbone: as `build_transfer_model` takes it, by name or path. Default: `"MobileNetV2"`,
            that of `recipe`, or the one of the embedded weights.
        output: the run directory, which must be new, or empty. Default: the next free `runs/N`.
        test: test images, as `data`.
        weights: `"imagenet"` (default), `"embedded"`, `"random"` or a file.
        scenario: `"auto"` measures which one it is (default), or one by name: `"small_similar"`,
            `"large_similar"`, `"small_different"`, `"large_different"`, `"guide"`, `"fastai"`,
            `"bit"`, `"scratch"`.
        recipe: a `Recipe`, a run directory or a recipe file, in place of a scenario.
        image_size: height and width of the network's input in pixels. Default: the backbone's own.
        image_sizes: sizes in pixels to choose from by a probe at each.
        head: `"stages"`, `"linear"` or `"mlp"`, as `build_transfer_model` takes it. Default: the
            recipe's, or `"stages"` to tell one class an image with pretrained weights.
        epochs: of each phase that trains by gradients, 1 or more. Default: the recipe's.
        augmentation: `"none"`, `"flip"`, `"light"`, `"medium"` or `"strong"`. Default: the
            recipe's.
        balance: how much images of rare classes count for more, from 0 (images alike) to 1 (classes
            alike), or `"auto"`: 1 where a class has ten times as many images as another, else 0.
            Default: the recipe's, or 0.
        objective: by what is kept: `"accuracy"` (default), `"balanced_accuracy"`, `"macro_f1"`.
        seed: of splits, order, augmentation and initial weights, 0 or more. Default: 0, or the
            recipe's.
        task: `"classification"`, `"multi_label"` or `"regression"`. Default: that of `data` or
            `recipe`, or classification.
        precision: `"float32"` (default), `"mixed_float16"`, `"mixed_bfloat16"`; exports: float32.
        accumulate: steps whose gradients are averaged before the weights change, on one device.
            Default: the recipe's, or 1.
        on_bad: what to do with unreadable files: `"error"`, or `"skip"` to leave them out.
        options: how to read `data` where it does not say so itself: a `DataOptions` of the
            arguments that `load_data` has for this, such as `image_column` and `bit_depth`.
        strategy: None, `"mirrored"`, `"multi_worker"` or a `tf.distribute.Strategy`.
        export: whether to write a SavedModel and prove it; `Run.export` does so later.
        page: whether to write the page and the model card; `kerastl report` does so later.
        resume: whether to go on with the run in `output`, or begin it if there is none.
        verbose: whether to show progress on stderr, or a function that is told each line.

    Returns:
        A `Run`. Of several machines, the first one alone writes the run directory.

    Raises:
        ArgumentError: an argument cannot be meant.
        DataError: the images are wrong, or `output` holds something else.
        WeightsError: the weights cannot be loaded, or do not fit.
        TrainingError: training cannot go on.
        ExportError: a file could not be written, or the export differs from the model.

    Example:
        >>> run = kerastl.train("flowers/", "MobileNetV2")
        >>> print(run)
        >>> run.predict("rose.jpg")
    """
    check_tensorflow("`train`")
    if isinstance(data, ImageData):
        task, options = task or data.task, data.options
    is_recipe = isinstance(recipe, Recipe)
    settings = RunSettings(
        data=describe_source(data),
        test=None if test is None else describe_source(test),
        on_bad=on_bad,
        options=options,
        backbone=backbone or "",
        weights=weights or "",
        scenario=scenario or "",
        recipe=recipe if isinstance(recipe, Recipe) else None,
        recipe_path=None if recipe is None or is_recipe else str(recipe),
        image_size=image_size,
        image_sizes=None if image_sizes is None else tuple(image_sizes),
        head=head or "",
        epochs=epochs,
        augmentation=augmentation,
        balance=balance,
        objective=objective or "",
        seed=-1 if seed is None else seed,
        task=task or "",
        precision=precision or "",
        accumulate=accumulate,
    )
    devices = None if strategy in (None, "none") else resolve_strategy(strategy)
    chief = devices is None or is_chief(devices)
    tell = teller(verbose) if chief else silent
    with locked_run_directory(output, resume=resume, writes=chief) as directory:
        if resume and chief and is_finished(directory):
            tell(f"The run in {directory} is finished.")
            return Run(directory)
        job = TrainingJob(settings, RunFiles(directory), devices, tell, export=export, page=page)
        return job.run(job.load(data, test))


class _Trained(NamedTuple):
    """A model that was trained and measured, and what there is to write about it."""

    model: keras.Model
    recipe: Recipe
    history: keras.callbacks.History
    test: BasePredictions
    validation: BasePredictions | None
    """Predictions of before any head saw the validation images."""


@dataclass(frozen=True)
class TrainingJob:
    """The training of one run in a directory that is ours."""

    settings: RunSettings
    files: RunFiles
    # A resolved `tf.distribute.Strategy`, or None for one device. Of several machines all train,
    # and the first does the rest.
    strategy: Any = None
    tell: Tell = say
    export: bool = True
    page: bool = True

    @property
    def _is_chief(self) -> bool:
        return self.strategy is None or is_chief(self.strategy)

    def _step(self, text: str) -> AbstractContextManager[object]:
        return step(text, shown=self.tell is not silent)

    def load(self, data: Any = None, test: Any = None) -> ImageData:
        """Return the images, split by the seed; tell how many there are, and what is wrong.

        Args:
            data: as `train` takes it. Default: what the settings name.
            test: the same.

        Raises:
            ArgumentError: loaded images are of another task, or come with other test images.
            DataError: there are no test images.
        """
        settings, recipe = self.settings, self.settings.recipe
        if settings.recipe_path is not None:
            changed = backbone_changed_warning(settings.recipe_path, settings.backbone)
            if changed is not None:
                self.tell(f"Warning: {changed}")
        if not isinstance(data, ImageData):
            with self._step("Reading the images"):
                images = load_data(
                    settings.data if data is None else data,
                    test=settings.test if test is None else test,
                    seed=settings.seed,
                    validation_fraction=recipe.validation_fraction if recipe else 0.15,
                    on_bad=settings.on_bad,
                    task=settings.task,
                    **settings.options.to_dict(),
                )
        elif data.task != settings.task or test is not None:
            raise ArgumentError(
                "Loaded data have their task and their test images. Received: data of "
                f"task={data.task!r} with task={settings.task!r}, test={test!r}. Leave both out."
            )
        else:
            images = data
        tell_data(images, self.tell)
        if images.test is None or not len(images.test):
            raise DataError(
                "There are no test images, so nothing could be said of the result. Give a set with "
                "`--test`, or a folder with `train/` and `test/`."
            )
        return images

    def run(self, images: ImageData) -> Run:
        """Decide what to train, or read what was decided; train, and return the finished run."""
        asked = {
            **self.settings.to_dict(),
            "data": {"classes": images.class_names, "fingerprint": images.fingerprint()},
            "lineage": [step["sha256"] for step in lineage_of(self.settings.backbone)],
        }
        plan: RunPlan | None = None
        if self._is_chief:
            begun = read_plan(self.files.directory, asked)
            if begun is not None:
                plan = RunPlan.from_dict(begun)
            else:
                plan = decide_plan(self.settings, images, self.tell)
                write_plan(self.files.directory, asked, plan.to_dict())
        if self.strategy is not None:
            with raise_on_lost_worker():
                plan = RunPlan.from_dict(broadcast_json(self.strategy, plan and plan.to_dict()))
        assert plan is not None  # noqa: S101  # the chief has decided
        return self.train(images, plan)

    def train(self, images: ImageData, plan: RunPlan) -> Run:
        """Train by a plan, measure and export; of what counts, `metrics.json` is written last."""
        started, files = time.perf_counter(), self.files
        model, recipe = build_model(images, plan, self.settings, self.strategy)
        chief, replicas = is_chief(model.distribute_strategy), num_replicas(model)
        if self.strategy is not None:
            self.tell(f"Devices that share each batch: {replicas}.")
        if self.settings.epochs is not None:
            recipe = with_epochs(recipe, self.settings.epochs)
        recipe = self._balanced(recipe, images)
        if chief:
            files.directory.mkdir(parents=True, exist_ok=True)
        seconds: dict[str, float] = {"build": time.perf_counter() - started}
        start_weights = weights_by_stage(model)
        history = fine_tune(
            model,
            images,
            recipe=recipe,
            log_dir=files.path(files.LOGS),
            checkpoints=files.path(files.CHECKPOINTS),
            verbose=self.tell is not silent,
        )
        seconds |= history.seconds
        with barrier_at_exit(model.distribute_strategy):
            if chief:
                tell_store(history.store, self.tell)
                if replicas > 1:  # measured and exported here alone, without the strategy
                    weights = model.get_weights()
                    model, _ = build_model(images, RunPlan(recipe=recipe), self.settings)
                    model.set_weights(weights)
                lap = time.perf_counter()
                with self._step("Measuring on the test images"):
                    trained = _measure(model, images, recipe, history)
                seconds["evaluate"] = time.perf_counter() - lap
                with self._step("Writing the model"):
                    seconds["export"] = self._write(images, trained, plan)
                files.write(files.METRICS, _metrics(trained, seconds, started))
                moved = how_far_moved(model, start_weights)
                if self.page:
                    with self._step("Writing the page"):
                        self._write_page(images, trained, moved)
                    self.tell(f"Page: {files.path(files.REPORT)}")
                mark_done(files.directory)
        return Run(files.directory, model=model)

    def _balanced(self, recipe: Recipe, images: ImageData) -> Recipe:
        """Return a recipe with the balance that was asked for."""
        balance = self.settings.balance
        if balance is None:
            return recipe
        if balance == "auto":
            counts = images.train.class_counts()
            balance = float(max(counts) >= UNEVEN * max(1, min(counts)))
            self.tell(f"Balance {balance:g}: {min(counts):,} to {max(counts):,} images a class.")
        return dataclasses.replace(recipe, balance=float(balance))

    def _write(self, images: ImageData, trained: _Trained, plan: RunPlan) -> float:
        """Write and export the model, and how it was made; return the seconds of the export."""
        files = self.files
        files.write_model(trained.model)
        files.write_labels(images.class_names)
        seen = [part.source.contents() for part in (images.train, images.validation) if part]
        files.write(files.SEEN, "".join(f"{one}\n" for part in seen for one in part))
        files.write(
            files.RECIPE,
            {
                "recipe": trained.recipe.to_dict(),
                "lineage": lineage_of(trained.recipe.backbone),
                "data": {**self.settings.source(), "fingerprint": images.fingerprint()},
                "versions": versions(),
            },
        )
        files.write_history(trained.history.history)
        if plan.diagnosis is not None:
            files.write(files.DIAGNOSIS, plan.diagnosis)
        lap, served = time.perf_counter(), files.path(files.SAVED_MODEL)
        shutil.rmtree(served, ignore_errors=True)  # of a run that was killed just before its end
        if self.export:
            with self._step("Exporting a SavedModel and checking it"):
                export_model(
                    trained.model, served, class_names=images.class_names, parity_data=images.test,
                )  # fmt: skip
        return time.perf_counter() - lap

    def _write_page(self, images: ImageData, trained: _Trained, moved: list[StageMovement]) -> None:
        """Keep what the model learnt; write the page, the card and TensorBoard's logs."""
        calibration = None
        if isinstance(trained.validation, Predictions) and isinstance(trained.test, Predictions):
            calibration = calibrate(trained.validation, trained.test)
        write_evaluation(
            self.files, trained.model, images,
            test=trained.test, calibration=calibration, moved=moved,
        )  # fmt: skip
        write_summaries(self.files)
        write_report(self.files.directory)
        write_card(self.files.directory)


def _measure(
    model: keras.Model, images: ImageData, recipe: Recipe, history: keras.callbacks.History
) -> _Trained:
    """Predict validation and test images; in between, fit a head alone to both other parts."""
    head_only = is_head_only(recipe, history)
    measure = predictions_of_head if head_only else collect_predictions
    validation = measure(model, images.validation) if images.validation else None
    if images.validation and head_only:
        refit_head(model, images, recipe)
    assert images.test is not None  # noqa: S101  the run was refused without test images
    test = measure(model, images.test)
    return _Trained(model, recipe, history, test, validation)


def _metrics(trained: _Trained, seconds: dict[str, float], started: float) -> Json:
    """Return what `metrics.json` holds."""
    store = trained.history.store
    return {
        "test": trained.test.measures(),
        "validation": trained.validation.measures() if trained.validation else None,
        "decisions": trained.history.decisions,
        "timing": {
            "phases": {name: round(value, 3) for name, value in seconds.items()},
            "store": {**asdict(store), "from_store": store.from_store},
            "total_seconds": time.perf_counter() - started,
        },
        "recipe": trained.recipe.to_dict(),
        "versions": versions(),
    }
