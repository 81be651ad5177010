"""The grid that calibrates and judges the advice: what each way to transfer reaches, cell by cell.

A cell is a data set, a network, a number of images a class and a seed, which draws the images to
train on (the validation images are 15 % of them, as for everyone). The test images, at most 400,
are the same in all cells of a set. In each cell, by the public path of kerastl:

- `head`: the recipe "small_similar", its head refitted on training and validation images.
- `last_stage`, `half`, `all`: the same head, then the last stage, the later half of the stages, or
  everything: one rate of 3e-4, a tenth of warm-up, cosine, clipping at 1, flips.
- `guide`, `fastai`: the recipes of these names.
- `evidence`: what `diagnose` measures before anything is trained.
- `profile_head`: a `SoftmaxProbe` at the end of every stage, on training and validation images
  without flips: the head of a backbone that is cut off there.

    python benchmarks/advice.py                   # the grid; goes on where it ended
    python benchmarks/advice.py --shard 1/2 &     # two processes of one thread each
    python benchmarks/advice.py --shard 2/2
    python benchmarks/advice.py --report          # the tables, from the lines there are
    python benchmarks/advice.py --report --fit    # and kerastl/advice/coefficients.json

The advised arm of a cell comes from coefficients fitted without the cell's set. Goal: a mean regret
of at most 1.0 point, and none of the fixed arms below it.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import advice_fit
import common
import numpy as np
from advice_grid import (
    ARMS,
    EVIDENCE,
    FIXED,
    PROFILE,
    WEIGHTS,
    Cell,
    cell_of,
    grid_arguments,
    read_lines,
    run_grid,
)

BOOTSTRAPS = 10_000
COEFFICIENTS = common.ROOT / "kerastl" / "advice" / "coefficients.json"
Grid = dict[Cell, dict[str, dict[str, Any]]]


def main() -> None:
    args = parse()
    if args.report:
        show(args)
        return
    run_grid(args)
    if args.smoke:
        show(args)


def parse() -> argparse.Namespace:
    parser = grid_arguments(__doc__, ARMS, 128, "advice_grid.jsonl")
    parser.add_argument("--published-seeds", nargs="*", type=int, default=[0])
    parser.add_argument(
        "--published-networks", nargs="*", choices=list(WEIGHTS), default=list(WEIGHTS)[:1]
    )
    parser.add_argument("--fit", action="store_true", help="with --report: write the coefficients")
    args = parser.parse_args()
    if args.smoke:
        args.sets, args.networks = args.sets[:1], args.networks[:1]
        args.sizes, args.seeds = ["5"], [0]
        args.arms, args.image_size = ["head", "last_stage", PROFILE, "guide"], 96
    if args.lines is None:
        folder = Path(tempfile.mkdtemp()) if args.smoke else common.RESULTS
        args.lines = folder / "advice_grid.jsonl"
    return args


def show(args: argparse.Namespace) -> None:
    """Print and keep what the lines say."""
    lines = read_lines(args.lines)
    args.lines = args.lines.name  # the folder is of this machine
    if not lines:
        common.stop("There are no lines to report on. Run the grid first.")
    report = common.Report(__file__, args)
    grid: Grid = {}
    for line in lines:
        grid.setdefault(cell_of(line), {})[line["arm"]] = line
    needed = {EVIDENCE, PROFILE, *FIXED}
    whole = {cell: arms for cell, arms in grid.items() if needed <= arms.keys()}
    report.table("Test accuracy, mean over networks and seeds", accuracy_rows(grid))
    report.table("CPU seconds, mean over the cells there are", seconds_rows(grid))
    rows: list[dict[str, Any]] = []
    if whole:
        report.table("The best fixed arm by mean accuracy, and its lead over the head in points",
                     best_rows(whole))  # fmt: skip
        rows = regret_rows(whole)
        report.table("Regret in points against the best fixed arm, 95 % over cells", rows)
    cells = [
        {**asdict(cell), **{arm: line.get("accuracy") for arm, line in arms.items()}}
        for cell, arms in grid.items()
    ]
    for cell, (arm, accuracy) in advice_fit.left_out(whole).items():
        cells[list(grid).index(cell)] |= {"advised": arm, "advised_accuracy": accuracy}
    report.keep(cells=cells)
    if args.fit and whole:
        about = {"image_size": args.image_size, "versions": common.versions()}
        advice_fit.write(whole, COEFFICIENTS, about)
    report.finish(goals_of(rows))


def goals_of(rows: Sequence[dict[str, Any]]) -> list[common.Goal]:
    regret = {row["arm"]: row["mean regret"] for row in rows}
    if "advised" not in regret:
        return []
    advised = regret.pop("advised")
    least = min(regret.values())
    return [
        common.Goal("mean regret of the advised arm", advised, 1.0, at_least=False),
        common.Goal(
            "mean regret above that of the best fixed arm", advised - least, 0, at_least=False
        ),
    ]


def accuracy_rows(grid: Grid) -> list[dict[str, Any]]:
    """Return a row a set and size; of the profile, the best stage in hindsight."""
    rows = []
    for (name, size), cells in grouped(grid, lambda cell: (cell.set, cell.size)):
        row: dict[str, Any] = {"set": name, "images a class": size, "cells": len(cells)}
        rows.append(row | {arm: mean(accuracies(cells, arm)) for arm in ARMS if arm != EVIDENCE})
    return rows


def seconds_rows(grid: Grid) -> list[dict[str, Any]]:
    """Return a row a network: how long each arm took."""
    rows = []
    for network, cells in grouped(grid, lambda cell: cell.network):
        took = {
            arm: mean([arms[arm]["seconds"]["cpu"] for arms in cells if arm in arms])
            for arm in ARMS
        }
        rows.append({"network": network, **took})
    return rows


def best_rows(whole: Grid) -> list[dict[str, Any]]:
    """Return a row a set and size, a column a network: the arm that is best over the seeds."""
    rows = []
    networks = [name for name in WEIGHTS if any(cell.network == name for cell in whole)]
    for (name, size), _ in grouped(whole, lambda cell: (cell.set, cell.size)):
        row: dict[str, Any] = {"set": name, "images a class": size}
        for network in networks:
            cells = [
                arms
                for cell, arms in whole.items()
                if (cell.set, cell.size, cell.network) == (name, size, network)
            ]
            means = {arm: float(np.mean(accuracies(cells, arm))) for arm in FIXED if cells}
            best = max(means, key=means.__getitem__, default=None)
            row[network] = f"{best} {100 * (means[best] - means['head']):+.1f}" if best else "-"
        rows.append(row)
    return rows


def regret_rows(whole: Grid) -> list[dict[str, Any]]:
    """Return a row an arm: its mean regret, and how much more that is than the least one's.

    The same cells are drawn for all arms, so differences are paired. The best of four measured
    accuracies is above the best of the four true ones: of all regrets a part is noise.
    """
    cells = list(whole)
    reached = {arm: np.array(accuracies(list(whole.values()), arm)) for arm in FIXED}
    best = np.max(list(reached.values()), axis=0)
    # What was advised without the set of the cell: an arm of it, looked up and not trained again.
    # An earlier stage may beat the best fixed arm: its regret is below zero then.
    choices = advice_fit.left_out(whole)
    reached["advised"] = np.array([choices[cell][1] for cell in cells])
    regret = {arm: 100 * (best - values) for arm, values in reached.items()}
    least = min(regret, key=lambda arm: float(regret[arm].mean()))
    drawn = np.random.default_rng(0).integers(0, len(cells), (BOOTSTRAPS, len(cells)))
    rows = []
    for arm, values in regret.items():
        beyond = values - regret[least]
        rows.append(
            {
                "arm": arm,
                "cells": len(cells),
                "mean regret": float(values.mean()),
                "95 %": interval(values, drawn),
                f"beyond {least}": float(beyond.mean()),
                "95 %, paired": interval(beyond, drawn),
                "worst cell": float(values.max()),
                "best or tied in": int((values == 0).sum()),
            }
        )
    return rows


def interval(values: np.ndarray, drawn: np.ndarray) -> str:
    """Return the 95 % interval of a mean, by the cells drawn."""
    low, high = np.percentile(values[drawn].mean(1), (2.5, 97.5))
    return f"{low:.2f} to {high:.2f}"


def accuracies(cells: Iterable[dict[str, dict[str, Any]]], arm: str) -> list[float]:
    """Return what an arm reached in the cells that have it; the best stage of the profile."""
    return [float(np.max(arms[arm]["accuracy"])) for arms in cells if arm in arms]


def grouped(grid: Grid, key: Callable[[Cell], Any]) -> list[tuple[Any, list[Any]]]:
    """Return the arms of the cells by a key, in its order."""
    keys = sorted({key(cell) for cell in grid})
    return [(one, [arms for cell, arms in grid.items() if key(cell) == one]) for one in keys]


def mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    main()
