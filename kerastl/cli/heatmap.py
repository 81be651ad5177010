"""`kerastl heatmap`: where on larger images a model sees its classes, as pictures."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def heatmap(
    run: options.Model,
    images: options.Images,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to show; default: the most probable.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Shorter side in pixels; default: twice the model's."),
    ] = None,
    on_bad: options.OnBad = "error",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the PNG files; default: RUN/heatmaps.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find a class in larger images, and show where it is.

    The network runs once as a convolution, so RUN must have been trained with `--head linear`. The
    box is the window with the highest probability.

    Example: kerastl heatmap runs/1 scene.jpg --class bees
    """
    start_tensorflow()
    from kerastl.runs.pictures import paint_heatmaps, read_painter

    painter = read_painter(run, images, output, "heatmaps", on_bad, say)
    with step("Looking for the class"):
        found = paint_heatmaps(painter, class_name, size)
    if json:
        print_json({**found, "skipped": [bad._asdict() for bad in painter.skipped]})
        return
    rows = [
        [row["path"], row["label"], f"{row['probability']:.3f}",
         ", ".join(f"{side:.0f}" for side in row["box"]), row["overlay"]]
        for row in found["heatmaps"]
    ]  # fmt: skip
    title = "{} images, windows of {} x {} pixels".format(len(rows), *found["window"])
    columns = ["image", "class", "probability", "top, left, bottom, right", "picture"]
    print_table(title, columns, rows)
