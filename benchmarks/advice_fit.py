"""From the lines of the grid to `kerastl/advice/coefficients.json`, and the advised arm of a cell.

The gain of an arm over the head, on the test images, is fitted as the error of the probe times a
linear function of `kerastl.advice.evidence.features`: by least squares, each cell weighed by its
test images over that error, to which the variance of a gain is proportional, with a little ridge:
where nothing was seen no gain is expected. An advised arm is never judged by numbers that were
fitted to its own set.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from advice_grid import EVIDENCE, FIXED, PROFILE, Cell

Arms = Mapping[str, dict[str, Any]]
SIMILAR = ("hymenoptera", "cats_vs_dogs_subset")  # photographs of what ImageNet has, in its sizes
PENALTY = 0.05
LEAST_GAIN, LEAST_LEAD = 0.002, 3.0
OPENED = FIXED[1:]
NATIVE_SIZE = 224  # of all three networks
# No set here is large and similar. The Keras guide's is (https://keras.io/guides/transfer_learning/):
# cats and dogs, Xception at 150 pixels, from 0.971 with the head to 0.9845 with everything open.
PUBLISHED = {"num_images": 9305, "test": 2326, "probe_error": 0.029, "gain": 0.0135}


def fit(grid: Mapping[Cell, Arms]) -> dict[str, Any]:
    """Return the coefficients that whole cells lead to."""
    from kerastl.advice import evidence as deciding

    numbers: dict[str, Any] = {
        "different": _different(grid),
        "gains": {},
        "least_gain": LEAST_GAIN,
        "least_lead": LEAST_LEAD,
    }
    similar = deciding.features(int(PUBLISHED["num_images"]), 0.0)
    known = [(similar, PUBLISHED["probe_error"], PUBLISHED["test"], [PUBLISHED["gain"]] * 3)]
    for arms in grid.values():
        found = evidence_of(arms)
        unlike = deciding.probability_different(found, numbers["different"])
        terms = deciding.features(found.num_images, unlike)
        gains = [arms[arm]["accuracy"] - arms["head"]["accuracy"] for arm in OPENED]
        known.append((terms, max(found.probe_error, 0.01), arms["head"]["test"], gains))
    scale = [np.sqrt(test / 400 / error) for _, error, test, _ in known]
    x = np.array(
        [w * error * np.array(f) for w, (f, error, _, _) in zip(scale, known, strict=True)]
    )
    y = np.array([w * np.array(gains) for w, (*_, gains) in zip(scale, known, strict=True)])
    weights = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ y)
    numbers["gains"] = {
        arm: np.round(column, 4).tolist() for arm, column in zip(OPENED, weights.T, strict=True)
    }
    return numbers


def _different(grid: Mapping[Cell, Arms]) -> dict[str, float]:
    """Return where similar and different part: the middle of the logarithms of the shift."""
    from kerastl.advice import evidence as deciding

    kept = dict(deciding.coefficients()["different"])
    shifts: dict[bool, list[float]] = {True: [], False: []}
    for cell, arms in grid.items():
        found = evidence_of(arms)
        if found.shift is not None and cell.size > 5:
            native = found.shift * np.sqrt(found.native_share)
            shifts[cell.set in SIMILAR].append(float(np.log(native)))
    if all(shifts.values()):
        middle = np.mean([np.mean(shifts[True]), np.mean(shifts[False])])
        kept["shift"] = round(float(np.exp(middle)), 4)
    return kept


def evidence_of(arms: Arms) -> Any:
    """Return the `Evidence` of a cell."""
    from dataclasses import fields

    from kerastl.advice.evidence import Evidence

    line = {"native_share": arms[EVIDENCE]["image_size"] / NATIVE_SIZE} | arms[EVIDENCE]
    return Evidence(**{field.name: line[field.name] for field in fields(Evidence)})


def advised(arms: Arms, numbers: dict[str, Any]) -> tuple[str, float]:
    """Return the arm that would be advised in a cell, and its accuracy there."""
    from kerastl.advice import evidence as deciding

    found = evidence_of(arms)
    unlike = deciding.probability_different(found, numbers["different"])
    arm = deciding.best_opening(found, unlike, numbers)
    stage = arms[EVIDENCE]["best_stage"]
    moves = arm == "head" and found.earlier_lead > numbers["least_lead"]
    if moves and PROFILE in arms and stage + 1 < arms[EVIDENCE]["stages"]:
        return "earlier", float(arms[PROFILE]["accuracy"][stage])
    return arm, float(arms[arm]["accuracy"])


def left_out(grid: Mapping[Cell, Arms]) -> dict[Cell, tuple[str, float]]:
    """Return what is advised in each cell by coefficients fitted without its set."""
    found = {}
    for name in {cell.set for cell in grid}:
        others = {cell: arms for cell, arms in grid.items() if cell.set != name}
        if not others:
            continue
        numbers = fit(others)
        found |= {cell: advised(arms, numbers) for cell, arms in grid.items() if cell.set == name}
    return found


def write(grid: Mapping[Cell, Arms], file: Path, about: dict[str, Any]) -> None:
    """Write the coefficients that all cells lead to, with where they come from."""
    provenance = {
        "from": "benchmarks/advice.py --fit, least squares over the cells below",
        "cells": len(grid),
        "sets": _names(cell.set for cell in grid),
        "networks": _names(cell.network for cell in grid),
        "images_a_class": sorted({cell.size for cell in grid}),
        "seeds": sorted({cell.seed for cell in grid}),
        **about,
    }
    file.write_text(json.dumps({"provenance": provenance, **fit(grid)}, indent=1) + "\n")


def _names(values: Iterable[str]) -> list[str]:
    return sorted(set(values))
