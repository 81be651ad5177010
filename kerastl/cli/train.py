"""`kerastl train`: labelled images to a measured, exported classifier in a run directory."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import (
    measure_cells,
    measure_columns,
    print_json,
    print_table,
    quiet_start,
    say,
    start_tensorflow,
)
from kerastl.cli.unfinished import CHECKPOINTS, begin, begun, finish, finished, working_on

if TYPE_CHECKING:
    from kerastl.data.load import ImageData
    from kerastl.model.recipes import Recipe

EMBEDDED_BACKBONE = "MobileNetV2(alpha=0.35)"


def train(
    data: options.Data,
    test: options.Test = None,
    backbone: options.Backbone = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, embedded, random, or a file.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="auto (measured), small_similar, large_similar, "
            "small_different, large_different, guide, fastai, bit or scratch."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Another run, or its recipe.json, to run its recipe again.")
    ] = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each phase that trains by gradients.")
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="none, flip, light, medium or strong, all of which but none mirror images; "
            "default: the recipe's."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One seed, one result.")] = None,
    strategy: options.Strategy = "none",
    worker_hosts: options.WorkerHosts = None,
    worker_index: options.WorkerIndex = None,
    deterministic: options.Deterministic = True,
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    output: options.Output = None,
    resume: options.Resume = False,
    json: Annotated[bool, typer.Option("--json", help="metrics.json on stdout.")] = False,
) -> None:
    """Train a classifier (or what `--task` says) on DATA and write a run directory.

    A folder per class, or `train/` and `test/` (or `val/`) holding one: what is held out is the
    test set, and the images that watch training are split off from `train/`.

    A run that was stopped, or killed, goes on with the same arguments, --output and --resume, and
    ends as if it had not been. With multi_worker each machine is given this command; the first one
    writes the run directory.
    """
    sizes = options.checked_sizes(image_sizes, image_size)
    with quiet_start():
        _set_machines(strategy, worker_hosts, worker_index)
    devices = start_tensorflow(deterministic=deterministic, strategy=strategy)
    from kerastl.machines import is_chief

    chief = devices is None or is_chief(devices)
    with working_on(output, resume=resume, writes=chief) as directory:
        metrics = finished(directory) if resume and chief else None
        if metrics is not None:
            say(f"The run in {directory} is finished.")
        else:
            metrics = trained(
                directory, devices, data=data, test=test, backbone=backbone, weights=weights,
                scenario=scenario, recipe=recipe, image_size=image_size, image_sizes=sizes,
                epochs=epochs, augmentation=augmentation, seed=seed, on_bad=on_bad, task=task,
            )  # fmt: skip
            if chief:
                finish(directory)
    if not chief:
        return
    if json:
        print_json(metrics)
        return
    task = metrics["recipe"].get("task", "classification")
    rows = [
        [name, *measure_cells(metrics[name], task)]
        for name in ("validation", "test")
        if metrics[name] is not None
    ]
    title = f"{metrics['recipe']['name']}, {directory}"
    print_table(title, ["", *measure_columns(task)], rows)


def _set_machines(strategy: str, hosts: str | None, index: int | None) -> None:
    """Check what names the machines, and tell TensorFlow of them."""
    from kerastl._checks import check_choice
    from kerastl.distribute import STRATEGIES
    from kerastl.machines import set_cluster

    check_choice("--strategy", strategy, STRATEGIES)
    if (hosts is None) != (index is None):
        raise typer.BadParameter("--worker-hosts and --worker-index are given both, or neither.")
    if hosts is None or index is None:
        return
    if strategy != "multi_worker":
        raise typer.BadParameter("--worker-hosts goes with --strategy multi_worker.")
    set_cluster(hosts.split(","), index)


def trained(
    directory: Path,
    devices: Any,
    *,
    data: str,
    test: str | None,
    backbone: str | None,
    weights: str | None,
    scenario: str | None,
    recipe: Path | None,
    image_size: int | None,
    epochs: int | None,
    seed: int | None,
    on_bad: str,
    task: str = "classification",
    image_sizes: tuple[int, ...] | None = None,
    augmentation: str | None = None,
) -> dict[str, Any]:
    """Do what `train` says in a directory that is ours; return its `metrics.json`."""
    from kerastl._checks import check_choice
    from kerastl.backbones.weights import resolve_name
    from kerastl.cli.runs import run_recipe
    from kerastl.data.load import load_data
    from kerastl.data.tasks import TASKS
    from kerastl.machines import broadcast_json, is_chief, raise_on_lost_worker
    from kerastl.model.recipes import (
        AUGMENTATION_NAMES,
        PUBLISHED,
        SCENARIOS,
        Recipe,
        scenario_by_count,
    )
    from kerastl.results.lineage import changed_since, lineage_of
    from kerastl.results.run_directory import read_recipe

    start: Recipe | str = read_recipe(recipe) if recipe else (scenario or "auto")
    if isinstance(start, Recipe) and scenario:
        raise typer.BadParameter("give --scenario or --recipe, not both.")
    check_choice("--task", task, TASKS)
    if isinstance(start, Recipe) and start.task != task:
        raise typer.BadParameter(f"the recipe is of task {start.task}: give --task {start.task}.")
    if image_sizes is not None and (start != "auto" or task != "classification"):
        raise typer.BadParameter(
            "--image-sizes are measured, which --scenario auto does, of classification alone."
        )
    fields = _fields(start, backbone, weights, image_size, seed)
    # What can be told from the arguments alone is told before the images are read.
    if scenario is not None:
        check_choice("--scenario", scenario, ("auto", *SCENARIOS, *PUBLISHED))
    if augmentation is not None:
        fields["augmentation"] = check_choice("--augmentation", augmentation, AUGMENTATION_NAMES)
    resolve_name(fields["backbone"])
    if recipe and (changed := changed_since(recipe, fields["backbone"])):
        say(f"Warning: {changed}")
    fraction = start.validation_fraction if isinstance(start, Recipe) else 0.15
    images = load_data(
        data, test=test, seed=fields["seed"], validation_fraction=fraction, on_bad=on_bad, task=task
    )
    chief = devices is None or is_chief(devices)
    if chief:
        say_data(images)
    if start == "auto" and fields["weights"] == "random":
        if image_sizes is not None:
            raise typer.BadParameter("--image-sizes need pretrained weights to measure with.")
        start, fields["reason"] = "scratch", "There are no pretrained weights to keep."
    if task != "classification":
        fields["task"] = task
        if start == "auto":
            start, fields["reason"] = scenario_by_count(len(images.train), images.num_classes, task)
            say(f"Recipe {start}, by the number of images: diagnoses are of classification alone.")
    about = {
        "start": start.to_dict() if isinstance(start, Recipe) else start, "epochs": epochs,
        "fields": fields,
        "data": {"classes": images.class_names, "fingerprint": images.fingerprint()},
        "lineage": [step["sha256"] for step in lineage_of(fields["backbone"])],
    }  # fmt: skip
    if image_sizes is not None:
        about["image_sizes"] = list(image_sizes)
    decided = _decided(directory, about, images, start, fields) if chief else None
    if devices is not None:
        with raise_on_lost_worker():
            decided = broadcast_json(devices, decided)
    assert decided is not None  # noqa: S101  # the chief has decided
    if decided["recipe"] is not None:
        start = Recipe.from_dict(decided["recipe"])
    if image_sizes is not None and isinstance(start, Recipe):
        fields["image_size"] = start.image_size
    return run_recipe(
        images,
        start,
        directory,
        source={"data": data, "test": test, "on_bad": on_bad},
        epochs=epochs,
        diagnosis=decided["diagnosis"],
        strategy=devices,
        checkpoints=directory / CHECKPOINTS,
        **fields,
    )


def _decided(
    directory: Path,
    about: dict[str, Any],
    images: "ImageData",
    start: "Recipe | str",
    fields: dict[str, Any],
) -> dict[str, Any]:
    """Return the advised recipe and its diagnosis, or nothing of both; kept for a resumed run."""
    decided = begun(directory, about)
    if decided is None:
        decided = {"recipe": None, "diagnosis": None}
        if start == "auto":
            advised, found = _advised(images, fields, about.get("image_sizes"))
            decided = {"recipe": advised.to_dict(), "diagnosis": found}
        begin(directory, about, decided)
    return decided


def _advised(
    images: "ImageData", fields: dict[str, Any], image_sizes: list[int] | None
) -> "tuple[Recipe, dict[str, Any]]":
    """Return the recipe that a diagnosis of the images leads to, and what it found."""
    from kerastl.advice.advise import advise
    from kerastl.advice.diagnosis import diagnose
    from kerastl.cli.diagnose import as_json

    names = ("weights", "image_size", "seed")
    given = {name: fields[name] for name in names}
    found = diagnose(fields["backbone"], images, image_sizes=image_sizes, **given)
    if image_sizes is not None:
        fields = {name: value for name, value in fields.items() if name != "image_size"}
    advice = advise(found, **fields)
    say(str(found))
    say(str(advice))
    return advice.recipe, as_json(found, advice)


def _fields(
    start: "Recipe | str",
    backbone: str | None,
    weights: str | None,
    image_size: int | None,
    seed: int | None,
) -> dict[str, Any]:
    """The fields of the recipe that the command sets; the others stay as the recipe has them."""
    from kerastl.backbones.given_models import OWN_WEIGHTS
    from kerastl.backbones.saved_model_backbone import is_saved_model

    fields: dict[str, Any] = {"backbone": "MobileNetV2", "weights": "imagenet"}
    fields |= {"image_size": None, "seed": 0}
    if weights == "embedded":
        fields["backbone"] = EMBEDDED_BACKBONE
    if not isinstance(start, str):
        kept = dataclasses.asdict(start)
        fields = {name: kept[name] for name in fields}
    if weights is None and backbone is not None and is_saved_model(backbone):
        weights = OWN_WEIGHTS
    given = {
        "backbone": backbone,
        "weights": weights,
        "image_size": None if image_size is None else (image_size, image_size),
        "seed": seed,
    }
    return fields | {name: value for name, value in given.items() if value is not None}


def say_data(images: "ImageData") -> None:
    """Say how many images there are, and what is wrong with some."""
    from kerastl.data.loaded import listed
    from kerastl.data.tasks import counted

    sizes = {
        "training": images.train, "validation": images.validation, "test": images.test
    }  # fmt: skip
    counts = ", ".join(f"{len(split):,} {name}" for name, split in sizes.items() if split)
    if images.task == "classification":
        say(f"{images.num_classes} classes; images: {counts}.")
    else:
        names = listed(images.class_names)
        say(f"{counted(images.num_classes, images.task)} ({names}); images: {counts}.")
    for path, reason in images.skipped:
        say(f"Left out {path}: {reason}")
    for warning in images.warnings:
        say(f"Warning: {warning}")
