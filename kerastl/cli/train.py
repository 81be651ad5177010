"""`kerastl train`: labelled images to a measured, exported classifier in a run directory."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import (
    MEASURE_COLUMNS,
    measure_cells,
    print_json,
    print_table,
    say,
    start_tensorflow,
)

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
        Path | None, typer.Option(help="recipe.json of another run, to run it again.")
    ] = None,
    image_size: options.ImageSize = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each phase that trains by gradients.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One seed, one result.")] = None,
    strategy: options.Strategy = "none",
    on_bad: options.OnBad = "error",
    output: options.Output = None,
    json: Annotated[bool, typer.Option("--json", help="metrics.json on stdout.")] = False,
) -> None:
    """Train a classifier on DATA and write a run directory.

    A folder per class, or `train/` and `test/` (or `val/`) holding one: what is held out is the
    test set, and the images that watch training are split off from `train/`.
    """
    start_tensorflow()
    from kerastl._checks import check_choice
    from kerastl.backbones.table import parse_backbone
    from kerastl.cli.runs import run_recipe
    from kerastl.data.load import load_data
    from kerastl.distribute import STRATEGIES
    from kerastl.model.recipes import PUBLISHED, SCENARIOS, Recipe
    from kerastl.results.run_directory import new_run_directory, read_recipe

    start: Recipe | str = read_recipe(recipe) if recipe else (scenario or "auto")
    if isinstance(start, Recipe) and scenario:
        raise typer.BadParameter("give --scenario or --recipe, not both.")
    fields = _fields(start, backbone, weights, image_size, seed)
    # What can be told from the arguments alone is told before the images are read.
    if scenario is not None:
        check_choice("--scenario", scenario, ("auto", *SCENARIOS, *PUBLISHED))
    check_choice("--strategy", strategy, STRATEGIES)
    parse_backbone(fields["backbone"])
    directory = new_run_directory(output)
    fraction = start.validation_fraction if isinstance(start, Recipe) else 0.15
    images = load_data(
        data, test=test, seed=fields["seed"], validation_fraction=fraction, on_bad=on_bad
    )
    say_data(images)
    if start == "auto" and fields["weights"] == "random":
        start, fields["reason"] = "scratch", "There are no pretrained weights to keep."
    found = None
    if start == "auto":
        start, found = _advised(images, fields)
    source = {"data": data, "test": test, "on_bad": on_bad}
    metrics = run_recipe(
        images,
        start,
        directory,
        source=source,
        epochs=epochs,
        diagnosis=found,
        strategy=strategy,
        **fields,
    )
    if json:
        print_json(metrics)
        return
    rows = [
        [name, *measure_cells(metrics[name])]
        for name in ("validation", "test")
        if metrics[name] is not None
    ]
    print_table(f"{metrics['recipe']['name']}, {directory}", ["", *MEASURE_COLUMNS], rows)


def _advised(images: "ImageData", fields: dict[str, Any]) -> "tuple[Recipe, dict[str, Any]]":
    """Return the recipe that a diagnosis of the images leads to, and what it found."""
    from kerastl.advice.advise import advise
    from kerastl.advice.diagnosis import diagnose
    from kerastl.cli.diagnose import as_json

    names = ("weights", "image_size", "seed")
    found = diagnose(fields["backbone"], images, **{name: fields[name] for name in names})
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
    fields: dict[str, Any] = {"backbone": "MobileNetV2", "weights": "imagenet"}
    fields |= {"image_size": None, "seed": 0}
    if weights == "embedded":
        fields["backbone"] = EMBEDDED_BACKBONE
    if not isinstance(start, str):
        kept = dataclasses.asdict(start)
        fields = {name: kept[name] for name in fields}
    given = {
        "backbone": backbone,
        "weights": weights,
        "image_size": None if image_size is None else (image_size, image_size),
        "seed": seed,
    }
    return fields | {name: value for name, value in given.items() if value is not None}


def say_data(images: "ImageData") -> None:
    """Say how many images there are, and what is wrong with some."""
    sizes = {
        "training": images.train, "validation": images.validation, "test": images.test
    }  # fmt: skip
    counts = ", ".join(f"{len(split):,} {name}" for name, split in sizes.items() if split)
    say(f"{images.num_classes} classes; images: {counts}.")
    for path, reason in images.skipped:
        say(f"Left out {path}: {reason}")
    for warning in images.warnings:
        say(f"Warning: {warning}")
