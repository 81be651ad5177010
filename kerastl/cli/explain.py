"""`kerastl explain`: draws where in an image a model looks."""

from pathlib import Path
from typing import Annotated

import typer

from kerastl._steps import step
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.options import ClassName, Images, Json, Model, OnBad, advanced, choice, to_path


def explain(
    run: Model,
    images: Images,
    class_name: ClassName = None,
    method: Annotated[
        str, typer.Option(**choice("auto", "grad_cam", "occlusion"), help="Method.")
    ] = "auto",
    stage: Annotated[str | None, advanced(help="Stage for Grad-CAM; default: the last.")] = None,
    on_bad: OnBad = "error",
    output: Annotated[Path | None, to_path(help="Folder; default: RUN/explanations.")] = None,
    json: Json = False,
) -> None:
    """Show where in each image the model looks.

    Example: kerastl explain runs/1 picture.jpg
    """
    start_tensorflow()
    from kerastl.model.heads import task_of
    from kerastl.runs.pictures import paint_explanations, read_painter

    painter = read_painter(run, images, output, "explanations", on_bad, say)
    with step("Explaining"):
        rows = paint_explanations(painter, class_name, method, stage)
    if json:
        print_json({"explanations": rows, "skipped": [bad._asdict() for bad in painter.skipped]})
        return
    shown, name, number = task_of(painter.model).told_columns
    cells = [[row["path"], row[name], f"{row[number]:.3f}", row["overlay"]] for row in rows]
    title = f"{len(rows)} images, {rows[0]['method']}"
    print_table(title, ["image", shown, number, "picture"], cells)
