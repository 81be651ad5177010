"""`kerastl predict`: the classes of images, by a run, a `.keras` file or a SavedModel."""

import csv
import json as json_text
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl._checks import check_choice
from kerastl.cli.console import print_json, print_table, say, start_tensorflow

STDIN = "-"


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run, a .keras file or a SavedModel.")
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", help="Image files, folders of them, or - for paths on stdin."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="So many classes an image.")] = 1,
    on_bad: Annotated[
        str, typer.Option(help="Unreadable files: error, or skip to leave them out.")
    ] = "error",
    labels: Annotated[
        Path | None, typer.Option(help="A class name a line; default: labels.txt beside MODEL.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv or jsonl.")] = "table",
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Name the class of each IMAGE and how probable MODEL holds it."""
    check_choice("--format", format_, _PRINTERS)
    paths = _paths(images)
    start_tensorflow()
    from kerastl.cli.models import read_classifier
    from kerastl.data.unlabelled import load_unlabelled

    classifier = read_classifier(model, labels)
    split, skipped = load_unlabelled(paths, on_bad=on_bad)
    for path, reason in skipped:
        say(f"Left out {path}: {reason}")
    probabilities = classifier.predict(split.images(classifier.size))
    answers: list[dict[str, Any]] = [
        {"path": path, "classes": _most_probable(row, classifier.class_names, top)}
        for path, row in zip(split.paths or [], probabilities, strict=True)
    ]
    if json:
        print_json({"predictions": answers, "skipped": [bad._asdict() for bad in skipped]})
        return
    _PRINTERS[format_](answers)


def _paths(images: list[Path]) -> list[str]:
    """Return the paths, with those of stdin in the place of `-`."""
    paths: list[str] = []
    for image in images:
        if str(image) == STDIN:
            paths += [line for line in sys.stdin.read().split("\n") if line.strip()]
        else:
            paths.append(str(image))
    return paths


def _most_probable(row: Any, class_names: list[str], top: int) -> list[dict[str, Any]]:
    return [
        {"label": class_names[index], "probability": float(row[index])}
        for index in row.argsort()[::-1][:top]
    ]


def _print_table(answers: list[dict[str, Any]]) -> None:
    rows = [
        [answer["path"], one["label"], f"{one['probability']:.3f}"]
        for answer in answers
        for one in answer["classes"]
    ]
    print_table(f"{len(answers)} images", ["image", "class", "probability"], rows)


def _print_csv(answers: list[dict[str, Any]]) -> None:
    """Print a row a class: the first of an image is the most probable."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "rank", "label", "probability"])
    for answer in answers:
        for rank, one in enumerate(answer["classes"], start=1):
            writer.writerow([answer["path"], rank, one["label"], f"{one['probability']:.6f}"])


def _print_lines(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        sys.stdout.write(json_text.dumps(answer, allow_nan=False) + "\n")


_PRINTERS: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    "table": _print_table,
    "csv": _print_csv,
    "jsonl": _print_lines,
}
