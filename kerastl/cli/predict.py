"""`kerastl predict`: the classes of images, by the model of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="So many classes an image.")] = 1,
    on_bad: Annotated[
        str, typer.Option(help="Unreadable files: error, or skip to leave them out.")
    ] = "error",
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Name the class of each IMAGE and how probable the model of RUN holds it."""
    start_tensorflow()
    from kerastl.data.unlabelled import load_unlabelled
    from kerastl.frozen.activations import image_size_of
    from kerastl.results.evaluate import predict_probabilities
    from kerastl.results.run_directory import read_run

    model, class_names = read_run(run)
    split, skipped = load_unlabelled([str(path) for path in images], on_bad=on_bad)
    for path, reason in skipped:
        say(f"Left out {path}: {reason}")
    probabilities = predict_probabilities(model, split.images(image_size_of(model)))
    answers: list[dict[str, Any]] = [
        {"path": path, "classes": _most_probable(row, class_names, top)}
        for path, row in zip(split.paths or [], probabilities, strict=True)
    ]
    if json:
        print_json({"predictions": answers, "skipped": [bad._asdict() for bad in skipped]})
        return
    rows = [
        [answer["path"], one["label"], f"{one['probability']:.3f}"]
        for answer in answers
        for one in answer["classes"]
    ]
    print_table(f"{len(answers)} images", ["image", "class", "probability"], rows)


def _most_probable(row: Any, class_names: list[str], top: int) -> list[dict[str, Any]]:
    return [
        {"label": class_names[index], "probability": float(row[index])}
        for index in row.argsort()[::-1][:top]
    ]
