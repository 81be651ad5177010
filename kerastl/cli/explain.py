"""`kerastl explain`: where in images a model looks, as pictures."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def explain(
    run: options.Model,
    images: options.Images,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What speaks for this class; default: the answer.")
    ] = None,
    method: Annotated[str, typer.Option(help="auto, grad_cam or occlusion.")] = "auto",
    stage: Annotated[
        str | None,
        typer.Option(help="For Grad-CAM: a stage by name or number; default: the last with a map."),
    ] = None,
    on_bad: options.OnBad = "error",
    output: Annotated[
        Path | None, typer.Option(help="Folder of the PNG files; default: explanations in RUN.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Paint over each IMAGE what in it speaks for the class that RUN names it."""
    start_tensorflow()
    from kerastl.runs.pictures import paint_explanations, read_painter

    painter = read_painter(run, images, output, "explanations", on_bad)
    for path, reason in painter.skipped:
        say(f"Left out {path}: {reason}")
    rows = paint_explanations(painter, class_name, method, stage)
    if json:
        print_json({"explanations": rows, "skipped": [bad._asdict() for bad in painter.skipped]})
        return
    cells = [
        [row["path"], row["label"], f"{row['probability']:.3f}", row["overlay"]] for row in rows
    ]
    title = f"{len(rows)} images, {rows[0]['method']}"
    print_table(title, ["image", "class", "probability", "picture"], cells)
