"""Trains, measures and exports a model from labelled images in a run directory."""

import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerastl._checks import check_tensorflow
from kerastl._steps import say, step
from kerastl._versions import versions
from kerastl.data.load import ImageData, describe_source, load_data
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.distribute import num_replicas, resolve_strategy
from kerastl.errors import ArgumentError, DataError
from kerastl.machines import barrier_at_exit, broadcast_json, is_chief, raise_on_lost_worker
from kerastl.model.recipes import Recipe
from kerastl.results.calibrate import calibrate
from kerastl.results.evaluation import write_evaluation
from kerastl.results.lineage import backbone_changed_warning, lineage_of
from kerastl.results.model_card import write_card
from kerastl.results.movement import how_far_moved, weights_by_stage
from kerastl.results.predictions import Predictions
from kerastl.results.report import write_report
from kerastl.results.run_files import RunFiles
from kerastl.results.run_shapes import StageMovement
from kerastl.results.summaries import write_summaries
from kerastl.runs.measuring import Trained, measure_parts, metrics_of
from kerastl.runs.plan import RunPlan, as_asked, build_model, decide_plan
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
from kerastl.runs.time_limit import NO_LIMIT, TimeLimit
from kerastl.runs.trackers import load_tracker
from kerastl.serving.export import export_model
from kerastl.training.fine_tune import fine_tune


def train(
    data: Any,
    backbone: Any = None,
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
    batch_size: int | None = None,
    learning_rate: float | None = None,
    freeze_depth: int | None = None,
    patience: int | None = None,
    validation_fraction: float | None = None,
    on_bad: str = "error",
    options: DataOptions = NO_OPTIONS,
    strategy: Any = None,
    export: bool = True,
    page: bool = True,
    time_limit: float | str | None = None,
    track: str | None = None,
    resume: bool = False,
    verbose: bool | Tell = True,
) -> Run:
    """Train a model on labelled images, and write a run directory with all results.

    This function does the whole job: it reads and splits the images, measures them with the
    backbone, chooses a recipe, trains the model, measures it on the test images, exports it, checks
    that the export predicts the same, and writes a page (`report.html`) and a model card. `kerastl
    train` calls this function.

    To continue a stopped run, pass the same arguments and `resume=True`; the result is the same as
    without the stop.

    Args:
        data: a source as for `load_data` (a folder, a CSV, an `.npz` file, `"tfds:NAME"`, arrays, a
            `tf.data.Dataset`), or an `ImageData`. It must have test images, or enough images to
            split some off.
        backbone: as for `build_transfer_model`, by name or path. Default: the backbone of `recipe`
            or of the embedded weights, otherwise `"MobileNetV2"`.
        output: the run directory, which must be new or empty. Default: the next free `runs/N`.
        test: test images, in the same form as `data`.
        weights: `"imagenet"` (default), `"embedded"`, `"random"` or a file.
        scenario: `"auto"` measures the scenario (default); or a name: `"small_similar"`,
            `"large_similar"`, `"small_different"`, `"large_different"`, `"guide"`, `"fastai"`,
            `"bit"`, `"scratch"`.
        recipe: a `Recipe`, a run directory or a recipe file, instead of a scenario.
        image_size: height and width of the network's input in pixels. Default: the backbone's own.
        image_sizes: several sizes in pixels; a probe at each size chooses one.
        head: `"stages"`, `"linear"`, `"mlp"` or `"mlp:UNITS"`, as for `build_transfer_model`.
            Default: the recipe's, or `"stages"` for classification with pretrained weights.
        epochs: epochs of each phase that trains by gradients, 1 or more. Default: the recipe's.
        augmentation: `"none"`, `"flip"`, `"light"`, `"medium"` or `"strong"`. Default: the
            recipe's.
        balance: weight of rare classes, from 0 (all images count the same) to 1 (all classes count
            the same); `"auto"`: 1 if a class has ten times as many images as another. Default: the
            recipe's, or 0.
        objective: validation metric that selects the model: `"accuracy"` (default),
            `"balanced_accuracy"` or `"macro_f1"`.
        seed: random seed of splits, order, augmentation and initial weights, 0 or more. Default:
            the recipe's, or 0.
        task: `"classification"`, `"multi_label"`, `"regression"` or `"detection"`. Default: that
            of `data` or `recipe`, or classification.
        precision: `"float32"` (default), `"mixed_float16"`, `"mixed_bfloat16"`; exports are
            float32.
        accumulate: number of steps whose gradients are averaged before the weights change; on one
            device only.
            Default: the recipe's, or 1.
        batch_size: images per step. Default: the recipe's, or 32.
        learning_rate: highest learning rate of fine-tuning, above 0. Default: the recipe's.
        freeze_depth: number of stages, from the input, that stay frozen in fine-tuning. Default:
            the recipe's.
        patience: a phase stops after this many epochs without improvement. Default: the recipe's.
        validation_fraction: fraction of the training images used for validation, 0 to 0.9. Default:
            0.15.
        on_bad: what to do with unreadable files: `"error"`, or `"skip"` to leave them out.
        options: how to read `data`: a `DataOptions` with arguments of `load_data` such as
            `image_column` and `bit_depth`.
        strategy: None, `"mirrored"`, `"multi_worker"` or a `tf.distribute.Strategy`.
        export: whether to write and check a SavedModel; `Run.export` does this later.
        page: whether to write the page and the model card; `Run.report` does this later.
        time_limit: time limit of the whole run: seconds above 0, or a time such as `"10m"`; if
            necessary, fine-tuning is shortened or skipped, with a message. Default: no limit.
        track: `"mlflow"` or `"wandb"`: log the finished run there, as `Run.track` does.
        resume: whether to continue the run in `output`, or start it if there is none.
        verbose: whether to show progress on stderr, or a function that receives each line.

    Returns:
        A `Run`. With several machines, only the first machine writes the run directory.

    Raises:
        ArgumentError: an argument is invalid.
        DataError: the images are wrong, or `output` contains other files.
        WeightsError: the weights cannot be loaded, or do not fit.
        TrainingError: training cannot continue.
        ExportError: a file cannot be written, or the export differs from the model.

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
        backbone="" if backbone is None else backbone,
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
        batch_size=batch_size,
        learning_rate=learning_rate,
        freeze_depth=freeze_depth,
        patience=patience,
        validation_fraction=validation_fraction,
    )
    if track is not None:
        load_tracker(track)
    devices = None if str(strategy) in ("None", "none") else resolve_strategy(strategy)
    if time_limit is not None and devices is not None:
        raise ArgumentError("`time_limit` works on one device only. Pass `epochs` instead.")
    chief = devices is None or is_chief(devices)
    tell = teller(verbose) if chief else silent
    limit = TimeLimit(time_limit, tell)
    with locked_run_directory(output, resume=resume, writes=chief) as directory:
        if resume and chief and is_finished(directory):
            tell(f"The run in {directory} is finished.")
            return Run(directory)
        job = TrainingJob(settings, RunFiles(directory), devices, tell, export, page, limit)
        run = job.run(job.load(data, test))
        if track is not None and chief:
            run.track(track)
        return run


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
    limit: TimeLimit = NO_LIMIT

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
        settings = self.settings
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
                    validation_fraction=settings.validation_share(),
                    on_bad=settings.on_bad,
                    task=settings.task,
                    **settings.options.to_dict(),
                )
        elif data.task != settings.task or test is not None:
            raise ArgumentError(
                "Loaded data already has a task and test images. Received: data with "
                f"task={data.task!r} with task={settings.task!r}, test={test!r}. Leave out "
                "both."
            )
        elif settings.validation_fraction is not None:
            raise ArgumentError(
                "Loaded data is already split. Received: "
                f"validation_fraction={settings.validation_fraction} with an `ImageData`. "
                "Pass `validation_fraction` to `load_data`."
            )
        else:
            images = data
        tell_data(images, self.tell)
        if images.test is None or not len(images.test):
            raise DataError(
                "There are no test images, so the result cannot be measured. Pass test "
                "images as `--test`, or a folder with `train/` and `test/`."
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
        recipe = as_asked(recipe, self.settings, images, self.tell)
        recipe = self.limit.what_fits(recipe, model, images)
        if chief:
            files.directory.mkdir(parents=True, exist_ok=True)
        seconds: dict[str, float] = {"build": time.perf_counter() - started}
        start_weights = weights_by_stage(model)
        history = fine_tune(
            model,
            images,
            recipe=recipe,
            callbacks=self.limit.callbacks,
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
                    trained = measure_parts(model, images, recipe, history)
                seconds["evaluate"] = time.perf_counter() - lap
                with self._step("Writing the model"):
                    seconds["export"] = self._write(images, trained, plan)
                files.write(files.METRICS, metrics_of(trained, seconds, started))
                moved = how_far_moved(model, start_weights)
                if self.page:
                    with self._step("Writing the page"):
                        self._write_page(images, trained, moved)
                    self.tell(f"Page: {files.path(files.REPORT)}")
                mark_done(files.directory)
        return Run(files.directory, model=model)

    def _write(self, images: ImageData, trained: Trained, plan: RunPlan) -> float:
        """Write and export the model, and how it was made; return the seconds of the export."""
        files = self.files
        files.write_model(trained.model)
        files.write_labels(images.class_names)
        files.write_seen(part.source for part in (images.train, images.validation) if part)
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

    def _write_page(self, images: ImageData, trained: Trained, moved: list[StageMovement]) -> None:
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
