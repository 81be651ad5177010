"""`kerastl predict`: the classes of images, by a run, a `.keras` file or a SavedModel."""

import csv
import json as json_text
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl._checks import check_choice
from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow

if TYPE_CHECKING:
    from kerastl._task import Task

STDIN = "-"


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
        typer.Option(min=1, help="Classes per image; default: 1, or all labels that apply."),
    ] = None,
    on_bad: options.OnBad = "error",
    labels: options.Labels = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="table|csv|jsonl", help="Output format.")
    ] = "table",
    json: options.Json = False,
) -> None:
    """Predict the class of each image, with its probability.

    Models of several labels give all that are more probable than not, or the `--top` most probable;
    regressions give each target with its value.

    Example: kerastl predict runs/1 picture.jpg folder/ --top 3
    """
    check_choice("--format", format_, _PRINTERS)
    paths = _paths(images)
    start_tensorflow()
    from kerastl.runs.classifier import read_classifier

    with step("Predicting"):
        found = read_classifier(model, labels).predict_images(paths, on_bad)
    for path, reason in found.skipped:
        say(f"Left out {path}: {reason}")
    answers = found.rows(top)
    if json:
        print_json({"predictions": answers, "skipped": [bad._asdict() for bad in found.skipped]})
        return
    _PRINTERS[format_](answers, found.task)


def _paths(images: list[Path]) -> list[str]:
    """Return the paths, with those of stdin in the place of `-`."""
    paths: list[str] = []
    for image in images:
        if str(image) == STDIN:
            paths += [line for line in sys.stdin.read().split("\n") if line.strip()]
        else:
            paths.append(str(image))
    return paths


def _print_table(answers: Sequence[Mapping[str, Any]], task: "Task") -> None:
    shown, name, number = task.told_columns
    rows = [
        [answer["path"], one[name], f"{one[number]:{task.told_digits[0]}}"]
        if one
        else [answer["path"], "-", ""]
        for answer in answers
        for one in answer[task.told_as] or [{}]
    ]
    print_table(f"{len(answers)} images", ["image", shown, number], rows)


def _print_csv(answers: Sequence[Mapping[str, Any]], task: "Task") -> None:
    """Print a row for each output that is told of an image, the most probable first.

    An image without a label has a row of rank 0.
    """
    writer = csv.writer(sys.stdout, lineterminator="\n")
    _, name, number = task.told_columns
    writer.writerow(["path", "rank", name, number])
    for answer in answers:
        if not answer[task.told_as]:
            writer.writerow([answer["path"], 0, "", ""])
        for rank, one in enumerate(answer[task.told_as], start=1):
            value = f"{one[number]:{task.told_digits[1]}}"
            writer.writerow([answer["path"], rank, one[name], value])


def _print_lines(answers: Sequence[Mapping[str, Any]], task: "Task") -> None:
    for answer in answers:
        sys.stdout.write(json_text.dumps(answer, allow_nan=False) + "\n")


_PRINTERS: dict[str, Callable[[Sequence[Mapping[str, Any]], "Task"], None]] = {
    "table": _print_table,
    "csv": _print_csv,
    "jsonl": _print_lines,
}
