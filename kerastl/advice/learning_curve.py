"""The error of ridge regression as a function of the number of images."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from kerastl.advice.ridge import (
    NUM_FOLDS,
    choose_penalty,
    indicators_of,
    one_blas_thread,
    standardised,
    stratified_folds,
    system_of,
)

FRACTIONS: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1)


def learning_curve(
    x: np.ndarray,
    y: np.ndarray,
    *,
    targets: np.ndarray | None = None,
    error: Callable[[np.ndarray, np.ndarray], float] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = 5,
    seed: int = 0,
) -> dict[int, list[float]]:
    """Return the error of ridge regression on fewer images.

    Each draw takes a share of every class and is judged by folds within itself, so that of m
    images a fit sees `1 - 1 / NUM_FOLDS`. A draw of the whole set only deals the folds anew.

    Args:
        x: `(n, d)` features.
        y: `(n,)` labels.
        targets: `(n, C)` numbers to fit. Default: the indicators of the labels.
        error: Of rows `(m,)` and their scores `(m, C)`, held out. Default: the share of rows whose
            highest score is not of their label.
        fractions: Shares of the images, above 0 and up to 1. One that leaves a class with fewer
            than two images is skipped.
        draws: At each fraction.
        seed: Of the draws.

    Returns:
        For each number of images, the error rate of each draw.
    """
    columns = np.unique(y, return_inverse=True)[1]
    targets = indicators_of(columns) if targets is None else targets

    def share_wrong(rows: np.ndarray, scores: np.ndarray) -> float:
        return float((scores.argmax(1) != columns[rows]).mean())

    measured = partial(_fold_errors, x, columns, targets, error or share_wrong)
    rng = np.random.default_rng(seed)
    errors = {}
    for fraction in fractions:
        shares = np.round(np.bincount(columns) * fraction).astype("int64")
        if shares.min() < 2:
            continue
        seeds = rng.integers(2**31, size=draws).tolist()
        with one_blas_thread():
            if shares.sum() == len(columns):
                rates = measured(np.arange(len(columns)), seeds)
            else:
                rows = [_drawn(columns, shares, draw) for draw in seeds]
                rates = [measured(some, seeds[:1])[0] for some in rows]
        errors[int(shares.sum())] = rates
    return errors


def _drawn(columns: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Return `shares[c]` rows of each class c, in their order."""
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(np.flatnonzero(columns == c))[:m] for c, m in enumerate(shares)]
    return np.sort(np.concatenate(parts))


def _fold_errors(
    x: np.ndarray,
    columns: np.ndarray,
    targets: np.ndarray,
    error: Callable[[np.ndarray, np.ndarray], float],
    rows: np.ndarray,
    seeds: list[int],
) -> list[float]:
    """Return the error over folds dealt by each seed; the penalty is chosen once."""
    columns = columns[rows]
    folds = stratified_folds(columns, NUM_FOLDS, seeds[0])
    system = system_of(standardised(x[rows]), targets[rows], folds)
    penalty = choose_penalty(system, grouped=False)
    rates = []
    for seed in seeds:
        if seed != seeds[0]:
            system.deal(stratified_folds(columns, NUM_FOLDS, seed))
        rates.append(error(rows, system.out_of_fold(penalty)))
    return rates
