"""`kerastl explain`: where in images a model looks, as pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a .keras file.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
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
    import numpy as np
    from PIL import Image

    from kerastl._checks import check_choice
    from kerastl.data.unlabelled import load_unlabelled
    from kerastl.frozen.prefixes import image_size_of
    from kerastl.results import explain as explaining
    from kerastl.results.run_directory import read_run

    check_choice("--method", method, explaining.METHODS)
    model, names = read_run(run)
    if class_name is not None:
        check_choice("--class", class_name, names)
    split, skipped = load_unlabelled([str(image) for image in images], on_bad=on_bad)
    for path, reason in skipped:
        say(f"Left out {path}: {reason}")
    folder = output or (run if run.is_dir() else run.parent) / "explanations"
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[str] = split.paths or []
    rows: list[dict[str, Any]] = []
    for pixels in split.images(image_size_of(model)).as_numpy_iterator():
        asked = None if class_name is None else np.full(len(pixels), names.index(class_name))
        found = explaining.explain(
            model, pixels, class_ids=asked, method=method, stage=_number_or_name(stage)
        )
        for place, painted in enumerate(explaining.overlay(pixels, found.heat)):
            file = folder / f"{len(rows):04}-{Path(paths[len(rows)]).stem}.png"
            Image.fromarray(painted).save(file)
            rows.append(_row(paths[len(rows)], file, found, place, names))
    if json:
        print_json({"explanations": rows, "skipped": [bad._asdict() for bad in skipped]})
        return
    cells = [
        [row["path"], row["label"], f"{row['probability']:.3f}", row["overlay"]] for row in rows
    ]
    title = f"{len(rows)} images, {rows[0]['method']}"
    print_table(title, ["image", "class", "probability", "picture"], cells)


def _number_or_name(stage: str | None) -> str | int | None:
    return int(stage) if stage is not None and stage.isdecimal() else stage


def _row(path: str, file: Path, found: Any, place: int, names: list[str]) -> dict[str, Any]:
    class_id = int(found.class_ids[place])
    return {
        "path": path,
        "label": names[class_id],
        "probability": float(found.probabilities[place, class_id]),
        "method": found.method,
        "stage": found.stage,
        "overlay": str(file),
    }
