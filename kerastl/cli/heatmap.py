"""`kerastl heatmap`: where on larger images a model sees its classes, as pictures."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def heatmap(
    run: options.Model,
    images: options.Images,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Default: that of the surest window.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Shorter side to look at; default: twice the model's own."),
    ] = None,
    on_bad: options.OnBad = "error",
    output: Annotated[
        Path | None, typer.Option(help="Folder of the PNG files; default: heatmaps in RUN.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Slide RUN over each larger IMAGE, and paint where it sees a class.

    The network is run once, as a convolution, for which RUN needs `--head linear`. The box is that
    of the surest window.
    """
    start_tensorflow()
    from kerastl.runs.pictures import paint_heatmaps, read_painter

    painter = read_painter(run, images, output, "heatmaps", on_bad)
    for path, reason in painter.skipped:
        say(f"Left out {path}: {reason}")
    found = paint_heatmaps(painter, class_name, size)
    if json:
        print_json({**found, "skipped": [bad._asdict() for bad in painter.skipped]})
        return
    print_table(
        "{} images, windows of {} x {} pixels".format(len(found["heatmaps"]), *found["window"]),
        ["image", "class", "probability", "top, left, bottom, right", "picture"],
        [
            [row["path"], row["label"], f"{row['probability']:.3f}",
             ", ".join(f"{side:.0f}" for side in row["box"]), row["overlay"]]
            for row in found["heatmaps"]
        ],
    )  # fmt: skip
