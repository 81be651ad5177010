"""`kerastl quickstart`: the whole way on real images, offline, in under two minutes."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl.cli.console import (
    MEASURE_COLUMNS,
    measure_cells,
    print_json,
    print_table,
    say,
    start_tensorflow,
)

if TYPE_CHECKING:
    from kerastl.data.load import ImageData

ARMS = (
    # title, weights, recipe
    ("embedded backbone, head only", "embedded", "small_similar"),
    ("embedded backbone, all fine-tuned", "embedded", "large_different"),
    ("the same network from scratch", "random", "large_different"),
)
EPOCHS = 6


def quickstart(
    output: Annotated[
        Path | None, typer.Option(help="Folder of the runs; default: the next runs/N.")
    ] = None,
    seed: Annotated[int, typer.Option(help="One seed, one result.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Tell scikit-learn's handwritten digits apart, with the embedded backbone and without.

    Needs no network: the 1,797 scanned digits come with scikit-learn, the backbone with kerastl.
    The same network from scratch gets the same recipe and epochs.
    """
    started = time.perf_counter()
    start_tensorflow()
    from kerastl.cli.runs import run_recipe
    from kerastl.cli.train import EMBEDDED_BACKBONE
    from kerastl.results.run_directory import new_run_directory

    data = digits(seed)
    directory = new_run_directory(output)
    rows, results = [], {}
    for title, weights, recipe in ARMS:
        say(f"{title} ...")
        name = f"{weights}-{recipe}"
        (directory / name).mkdir()
        metrics = run_recipe(
            data,
            recipe,
            directory / name,
            source={"data": "scikit-learn digits", "test": None, "on_bad": "error"},
            epochs=EPOCHS,
            backbone=EMBEDDED_BACKBONE,
            weights=weights,
            image_size=(64, 64),
            seed=seed,
        )
        results[name] = metrics["test"]
        seconds = f"{metrics['timing']['total_seconds']:.0f} s"
        rows.append([title, *measure_cells(metrics["test"]), seconds])
    total = time.perf_counter() - started
    if json:
        print_json({"runs": str(directory), "test": results, "seconds": total})
        return
    print_table("Test images of scikit-learn's digits", ["", *MEASURE_COLUMNS, "time"], rows)
    say(
        f"{total:.0f} s in all. Each run lies under {directory}: model.keras, metrics.json, "
        "saved_model/1 (takes encoded images)."
    )


def digits(seed: int) -> "ImageData":
    """Return scikit-learn's digits as raw pixels: 1,797 scans of 8 x 8, ten classes."""
    from sklearn.datasets import load_digits

    from kerastl.data.load import load_data

    bunch: Any = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype("uint8")
    return load_data(
        (pixels, bunch.target), class_names=[str(digit) for digit in range(10)], seed=seed
    )
