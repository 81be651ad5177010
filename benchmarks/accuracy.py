"""What a run reaches by default, beside what else people do with the same images.

A cell is a data set, a network, a number of images a class and a seed, as in `advice.py`. In each:

- `default`: `kerastl.train` with nothing but the backbone named.
- `head_alone`: the same with the backbone frozen (`scenario="small_similar"`).
- `all`: a softmax head on the pooled top, then everything open.
- `guide`, `fastai`: the recipes of these names.
- `logistic`: scikit-learn's logistic regression on the pooled top, as it is taught.
- `before`: `default` of another version of kerastl, named by PYTHONPATH.

    python benchmarks/accuracy.py --sizes all --seeds 0          # goes on where it ended
    PYTHONPATH=../earlier python benchmarks/accuracy.py --before # the same cells, earlier version
    python benchmarks/accuracy.py --report                       # the tables, from the lines

Goals: `default` 2.5 points above `before` on the mean, and 3 points above the best of `guide`,
`fastai` and `logistic`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
from advice_grid import (
    DEFAULT,
    HEAD_ALONE,
    LOGISTIC,
    PUBLISHED,
    cell_of,
    grid_arguments,
    read_lines,
    run_grid,
)

BEFORE = "before"
OTHERS = (*PUBLISHED, LOGISTIC)
ARMS = (DEFAULT, HEAD_ALONE, "all", *OTHERS)
BOOTSTRAPS = 10_000


def main() -> None:
    args = parse()
    if not args.report:
        run_grid(args)
    if args.report or args.smoke:
        show(args)


def parse() -> argparse.Namespace:
    parser = grid_arguments(__doc__, ARMS, 224, "accuracy.jsonl")
    parser.add_argument("--before", action="store_true", help="run `default`, and call it `before`")
    args = parser.parse_args()
    args.max_train, args.max_test = 1020, 1000
    args.published_seeds, args.published_networks = args.seeds, args.networks
    args.names = {DEFAULT: BEFORE} if args.before else {}
    if args.before:
        args.arms = [DEFAULT]
    if args.smoke:
        args.sets, args.networks = args.sets[:1], args.networks[:1]
        args.sizes, args.seeds, args.arms = ["5"], [0], [HEAD_ALONE, LOGISTIC]
        args.image_size = 96
    if args.lines is None:
        folder = Path(tempfile.mkdtemp()) if args.smoke else common.RESULTS
        args.lines = folder / "accuracy.jsonl"
    return args


def show(args: argparse.Namespace) -> None:
    """Print and keep what the lines say."""
    lines = read_lines(args.lines)
    args.lines = args.lines.name  # the folder is of this machine
    if not lines:
        common.stop("There are no lines to report on. Run the grid first.")
    report = common.Report(__file__, args)
    grid: dict[Any, dict[str, Any]] = {}
    for line in lines:
        grid.setdefault(cell_of(line), {})[line["arm"]] = line
    report.table("Test accuracy, mean over seeds", accuracy_rows(grid))
    rows = difference_rows(grid)
    if rows:
        report.table("`default` minus another arm in points, over the cells that have both", rows)
    report.finish(goals_of(rows))


def accuracy_rows(grid: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a set, network and size."""
    kinds: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for cell, arms in grid.items():
        kinds.setdefault((cell.set, cell.network, cell.size), []).append(arms)
    found = []
    for (name, network, size), cells in sorted(kinds.items()):
        row: dict[str, Any] = {"set": name, "network": network, "a class": size}
        for arm in (*ARMS, BEFORE):
            seen = [arms[arm]["accuracy"] for arms in cells if arm in arms]
            row[arm] = round(float(np.mean(seen)), 3) if seen else None
        found.append(row | {"seeds": len(cells)})
    return found


def difference_rows(grid: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row an arm: the mean difference, with an interval over cells, and CPU seconds."""
    found, rng = [], np.random.default_rng(0)
    for arm in (HEAD_ALONE, "all", *OTHERS, BEFORE):
        both = [arms for arms in grid.values() if DEFAULT in arms and arm in arms]
        if not both:
            continue
        gains = np.array([100 * (a[DEFAULT]["accuracy"] - a[arm]["accuracy"]) for a in both])
        drawn = gains[rng.integers(len(gains), size=(BOOTSTRAPS, len(gains)))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        cpu = [sum(a[name]["seconds"]["cpu"] for a in both) for name in (DEFAULT, arm)]
        found.append(
            {
                "arm": arm,
                "cells": len(both),
                "mean": round(float(gains.mean()), 2),
                "95 %": f"{low:+.2f} to {high:+.2f}",
                "worst": round(float(gains.min()), 2),
                "CPU seconds of default over its own": round(cpu[0] / cpu[1], 2),
            }
        )
    return found


def goals_of(rows: list[dict[str, Any]]) -> list[common.Goal]:
    by_arm = {row["arm"]: row["mean"] for row in rows}
    goals = []
    if BEFORE in by_arm:
        goals.append(common.Goal("points above the version before", by_arm[BEFORE], 2.5))
    if others := [by_arm[arm] for arm in OTHERS if arm in by_arm]:
        goals.append(common.Goal("points above the best of the others", min(others), 3.0))
    return goals


if __name__ == "__main__":
    main()
