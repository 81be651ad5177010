"""One run: data and a recipe become a trained, measured and exported model in a folder."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastl.cli.console import say

if TYPE_CHECKING:
    import keras

    from kerastl.data.load import ImageData
    from kerastl.frozen.runtime import StoreUsage
    from kerastl.model.recipes import Recipe
    from kerastl.results.predictions import Predictions
    from kerastl.results.task_predictions import TaskPredictions

    Answers = Predictions | TaskPredictions

BUILT = ("backbone", "weights", "image_size", "cut")  # the fields of a recipe that make the model


def run_recipe(
    data: "ImageData",
    start: "Recipe | str",
    output: Path,
    *,
    source: dict[str, Any],
    epochs: int | None = None,
    diagnosis: dict[str, Any] | None = None,
    strategy: Any = None,
    checkpoints: Path | None = None,
    **build: Any,
) -> dict[str, Any]:
    """Train, measure and export; write the run directory and return its `metrics.json`.

    Of several machines all train, and the first does the rest; the others return nothing in it.

    Args:
        data: of `load_data`, with a test split.
        start: a complete `Recipe`, or the name of one, whose other fields `build` holds.
        output: the folder; of what counts, `metrics.json` comes last in it.
        source: what `recipe.json` keeps of where the data came from.
        epochs: of each phase that trains by gradients, instead of the recipe's.
        diagnosis: what `diagnosis.json` holds, if anything was measured.
        strategy: a `tf.distribute.Strategy`, or None for one device.
        checkpoints: folder that keeps the epochs, to go on from when a run was stopped.
        **build: fields of `Recipe` that overrule the recipe's.
    """
    from kerastl.distribute import num_replicas
    from kerastl.errors import DataError
    from kerastl.machines import barrier_at_exit, is_chief
    from kerastl.model.recipes import with_epochs
    from kerastl.results.movement import how_far_moved, weights_by_stage
    from kerastl.results.run_directory import write_json
    from kerastl.training.fine_tune import fine_tune

    if data.test is None or not len(data.test):
        raise DataError(
            "There are no test images, so nothing could be said of the result. Give a set with "
            "`--test`, or a folder with `train/` and `test/`."
        )
    started = time.perf_counter()
    model, recipe = model_and_recipe(data, start, build, strategy)
    chief, replicas = is_chief(model.distribute_strategy), num_replicas(model)
    if strategy is not None and chief:
        say(f"Devices that share each batch: {replicas}.")
    if epochs is not None:
        recipe = with_epochs(recipe, epochs)
    if chief:
        output.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {"build": time.perf_counter() - started}
    start_weights = weights_by_stage(model)
    history = fine_tune(
        model, data, recipe=recipe, log_dir=output / "logs", checkpoints=checkpoints
    )
    seconds |= history.seconds
    metrics: dict[str, Any] = {}
    with barrier_at_exit(model.distribute_strategy):
        if chief:
            say_store(history.store)
            if replicas > 1:
                model = _on_one_device(model, data, recipe)
            metrics, test, validation = _measured(
                model, data, recipe, history, output, source, diagnosis, seconds
            )
            metrics["timing"]["total_seconds"] = time.perf_counter() - started
            write_json(output / "metrics.json", metrics)
            lap = time.perf_counter()
            moved = how_far_moved(model, start_weights)
            write_page(output, model, data, test=test, validation=validation, moved=moved)
            say(f"{output / 'report.html'} ({time.perf_counter() - lap:.1f} s)")
    return metrics


def _on_one_device(model: "keras.Model", data: "ImageData", recipe: "Recipe") -> "keras.Model":
    """Return the same model without a strategy, to measure and export it here alone."""
    alone, _ = model_and_recipe(data, recipe, {})
    alone.set_weights(model.get_weights())
    return alone


def _measured(
    model: "keras.Model",
    data: "ImageData",
    recipe: "Recipe",
    history: "keras.callbacks.History",
    output: Path,
    source: dict[str, Any],
    diagnosis: dict[str, Any] | None,
    seconds: dict[str, float],
) -> "tuple[dict[str, Any], Answers, Answers | None]":
    """Measure, write and export a trained model.

    Returns:
        What `metrics.json` holds; the answers about the test images, and about those of validation.
    """
    from kerastl.results.evaluate import collect_predictions
    from kerastl.results.lineage import lineage_of
    from kerastl.results.run_directory import versions, write_json, write_run
    from kerastl.serving.export import export_model
    from kerastl.training.fine_tune import is_head_only, refit_head

    lap = time.perf_counter()
    answers = collect_predictions(model, data.validation) if data.validation else None
    if data.validation and is_head_only(recipe, history):
        refit_head(model, data, recipe)
    test_answers = collect_predictions(model, data.test)
    test, validation = test_answers.measures(), answers.measures() if answers else None
    seconds["evaluate"] = time.perf_counter() - lap
    write_run(
        output,
        model=model,
        class_names=data.class_names,
        recipe={
            "recipe": recipe.to_dict(),
            "lineage": lineage_of(recipe.backbone),
            "data": {**source, "fingerprint": data.fingerprint()},
            "versions": versions(),
        },
        history=history.history,
    )
    if diagnosis is not None:
        write_json(output / "diagnosis.json", diagnosis)
    lap = time.perf_counter()
    served = output / "saved_model"
    shutil.rmtree(served, ignore_errors=True)  # of a run that was killed just before its end
    export_model(model, served, class_names=data.class_names, parity_data=data.test)
    seconds["export"] = time.perf_counter() - lap
    metrics = {
        "test": test,
        "validation": validation,
        "timing": {
            "phases": {name: round(value, 3) for name, value in seconds.items()},
            "store": {**asdict(history.store), "from_store": history.store.from_store},
        },
        "recipe": recipe.to_dict(),
        "versions": versions(),
    }
    return metrics, test_answers, answers


def write_page(
    output: Path,
    model: "keras.Model",
    data: "ImageData",
    *,
    test: "Answers",
    validation: "Answers | None",
    moved: "list[dict[str, Any]]",
) -> None:
    """Keep what the model learnt; write `report.html`, `MODEL_CARD.md` and TensorBoard's logs.

    Args:
        output: the run directory, with all else that belongs to it.
        model: as it was evaluated.
        data: with a test split.
        test: its answers about the test images.
        validation: its answers about the validation images, before any head saw these.
        moved: of `how_far_moved`.
    """
    from kerastl.results.calibrate import calibrate
    from kerastl.results.findings import keep_findings
    from kerastl.results.model_card import write_card
    from kerastl.results.predictions import Predictions
    from kerastl.results.report import write_report
    from kerastl.results.run_facts import read_facts
    from kerastl.results.summaries import write_summaries

    calibration = None
    if isinstance(validation, Predictions) and isinstance(test, Predictions):
        calibration = calibrate(validation, test)
    keep_findings(output, model, data, test=test, calibration=calibration, moved=moved)
    write_summaries(read_facts(output))
    write_report(output)
    write_card(output)


def say_store(report: "StoreUsage") -> None:
    """Say what the store of activations was good for."""
    if report.from_store:
        say(
            "Started from the store: the frozen stages were not run on the "
            f"{report.images_found:,} views of images that they were needed for, which had taken "
            f"{report.seconds_saved:.1f} s."
        )
    elif report.images_computed:
        later = "; later runs start there" if report.images_stored else ""
        say(
            f"The frozen stages were run once on {report.images_computed:,} views of images "
            f"(engine {report.engine}, {report.seconds:.1f} s){later}."
        )


def model_and_recipe(
    data: "ImageData", start: "Recipe | str", build: dict[str, Any], strategy: Any = None
) -> "tuple[keras.Model, Recipe]":
    """Return an untrained model and the complete recipe for it; arguments as `run_recipe` takes."""
    import dataclasses

    import keras

    from kerastl.model.build import build_transfer_model
    from kerastl.model.freeze import stages
    from kerastl.model.recipes import Recipe, make_recipe

    if isinstance(start, Recipe):
        start = dataclasses.replace(start, **build)
        build = {name: getattr(start, name) for name in BUILT}
    keras.utils.set_random_seed(start.seed if isinstance(start, Recipe) else build["seed"])
    model = build_transfer_model(
        build["backbone"],
        data.num_classes,
        weights=build["weights"],
        image_size=build["image_size"],
        cut=build.get("cut"),
        class_names=data.class_names,
        strategy=strategy,
        task=data.task,
    )
    if isinstance(start, Recipe):
        return model, start
    recipe = make_recipe(
        start,
        num_stages=len(stages(model)),
        num_images=len(data.train),
        num_classes=data.num_classes,
        **build,
    )
    return model, recipe
