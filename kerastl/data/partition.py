"""Stratified splits of plain label arrays."""

from collections.abc import Sequence

import numpy as np


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int | Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Split indices so that each class gives up the same share.

    A class gives `fraction` of its images, rounded so that the total comes as near as it can, and
    keeps at least one.

    Args:
        labels: Ints `(n,)`.
        fraction: Share to hold out, from 0 to 1.
        seed: Decides which images of a class are held out.

    Returns:
        The indices kept and the indices held out, both sorted.
    """
    _, members = np.unique(labels, return_inverse=True)
    counts = np.bincount(members)
    order = np.random.default_rng(seed).permutation(len(labels))
    held = [
        order[members[order] == group][:number]
        for group, number in enumerate(held_out_counts(counts, fraction))
    ]
    held_out = np.sort(np.concatenate([np.empty(0, np.int64), *held]))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def held_out_counts(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many of each class to hold out, by largest remainders.

    Args:
        counts: Ints `(num_classes,)`, the images of each class, each at least 1.
        fraction: Share to hold out, from 0 to 1.

    Returns:
        Ints `(num_classes,)`, each below its count.
    """
    exact = counts * fraction
    whole = np.floor(exact).astype(np.int64)
    missing = int(np.round(exact.sum())) - int(whole.sum())
    by_remainder = np.argsort(whole - exact, kind="stable")
    whole[by_remainder[:missing]] += 1
    return np.minimum(whole, counts - 1)
