"""`kerastl heatmap`: where on larger images a model sees its classes, as pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow


def heatmap(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a .keras file.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
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

    The network is run once, as a convolution. The box is that of the surest window.
    """
    start_tensorflow()
    from PIL import Image

    from kerastl._checks import check_choice
    from kerastl.data.unlabelled import load_unlabelled
    from kerastl.results.class_map import ClassMapper
    from kerastl.results.explain import overlay
    from kerastl.results.run_files import read_labelled_model

    model, names = read_labelled_model(run)
    if class_name is not None:
        check_choice("--class", class_name, names)
    mapper = ClassMapper(model)
    split, skipped = load_unlabelled([str(image) for image in images], on_bad=on_bad)
    for path, reason in skipped:
        say(f"Left out {path}: {reason}")
    folder = output or (run if run.is_dir() else run.parent) / "heatmaps"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for place, path in enumerate(split.paths or []):
        one = split.subset([place])
        height, width = (int(side) for side in one.source.sizes()[0])
        pixels = next(iter(one.images((height, width)).as_numpy_iterator()))[0]
        seen = mapper(pixels, size)
        surest = int(seen.probabilities.max((0, 1)).argmax())
        class_id = surest if class_name is None else names.index(class_name)
        cell = seen.strongest(class_id)
        file = folder / f"{place:04}-{Path(path).stem}.png"
        Image.fromarray(overlay(pixels[None], seen.heat(class_id)[None])[0]).save(file)
        rows.append(
            {
                "path": path,
                "label": names[class_id],
                "probability": float(seen.probabilities[(*cell, class_id)]),
                "box": [round(side, 1) for side in seen.box(*cell)],
                "cells": list(seen.probabilities.shape[:2]),
                "looked_at": list(seen.looked_at),
                "overlay": str(file),
            }
        )
    if json:
        found = {"window": mapper.window, "stride": mapper.stride, "heatmaps": rows}
        print_json({**found, "skipped": [bad._asdict() for bad in skipped]})
        return
    print_table(
        f"{len(rows)} images, windows of {mapper.window[0]} x {mapper.window[1]} pixels",
        ["image", "class", "probability", "top, left, bottom, right", "picture"],
        [
            [row["path"], row["label"], f"{row['probability']:.3f}",
             ", ".join(f"{side:.0f}" for side in row["box"]), row["overlay"]]
            for row in rows
        ],
    )  # fmt: skip
