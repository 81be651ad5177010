"""`kerastl heatmap`: draws where in a larger image a model finds a class."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl._steps import step
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.options import ClassName, Images, Json, Model, OnBad, to_path


def heatmap(
    run: Model,
    images: Images,
    class_name: ClassName = None,
    size: Annotated[int | None, typer.Option(min=1, help="Shorter side in pixels.")] = None,
    on_bad: OnBad = "error",
    output: Annotated[Path | None, to_path(help="Folder; default: RUN/heatmaps.")] = None,
    json: Json = False,
) -> None:
    """Find a class in larger images, and show where it is.

    The network runs once over the whole image, so RUN must be trained with `--head linear`. The box
    marks the window with the highest probability.

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
