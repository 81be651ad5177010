"""`kerastl predict`: classifies images with a run, a `.keras` file or a SavedModel."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kerastl._atomic import atomic_path
from kerastl._checks import check_choice
from kerastl._steps import step
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.options import Json, Labels, OnBad, choice, in_output, to_path

if TYPE_CHECKING:
    from kerastl.runs.classifier import ImagePredictions

STDIN = "-"
FORMATS = ("table", "csv", "jsonl")
_OUTPUT = "Write a .csv or .jsonl file instead of printing."


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run, .keras file or SavedModel.")],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="Image files or folders; - reads paths from stdin."
        ),
    ],
    top: Annotated[
        int | None,
        in_output(
            min=1,
            metavar="N",
            help="Classes per image; default: 1, or all labels above thresholds.",
        ),
    ] = None,
    on_bad: OnBad = "error",
    labels: Labels = None,
    format_: Annotated[
        str, in_output("--format", **choice(*FORMATS), help="Output format.")
    ] = "table",
    output: Annotated[Path | None, to_path(help=_OUTPUT)] = None,
    json: Json = False,
) -> None:
    """Predict the class of each image, with its probability.

    Multi-label models return all labels above their thresholds, or the `--top` most probable.
    Regression models return the value of each target.

    Example: kerastl predict runs/1 picture.jpg folder/ --top 3
    """
    check_choice("--format", format_, FORMATS)
    if output is not None:
        format_ = check_choice("the ending of --output", output.suffix[1:], FORMATS[1:])
    paths = _paths(images)
    start_tensorflow()
    from kerastl.runs.classifier import read_classifier

    with step("Predicting"):
        found = read_classifier(model, labels).predict_images(paths, on_bad)
    for path, reason in found.skipped:
        say(f"Left out {path}: {reason}")
    if json:
        skipped = [bad._asdict() for bad in found.skipped]
        print_json({"predictions": found.rows(top), "skipped": skipped})
        return
    if output is None:
        _print(found, top, format_)
        return
    with atomic_path(output) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        found.write(file, format_, top)
    say(f"{len(found)} predictions: {output}")


def _paths(images: list[Path]) -> list[str]:
    """Return the paths, with those of stdin in the place of `-`."""
    named = [sys.stdin.read().split("\n") if str(image) == STDIN else [image] for image in images]
    return [str(path) for paths in named for path in paths if str(path).strip()]


def _print(found: "ImagePredictions", top: int | None, form: str) -> None:
    if form != "table":
        found.write(sys.stdout, form, top)
        return
    shown, _, number = found.task.told_columns
    cells = [[path, told or "-", value] for path, _, told, value in found.cells(top)]
    print_table(f"{len(found)} images", ["image", shown, number], cells)
