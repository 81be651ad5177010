"""Stratified splits of plain label arrays."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def stratified_split(
    labels: np.ndarray,
    fraction: float,
    seed: int | Sequence[int],
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split indices so that each class gives up the same share.

    A class gives `fraction` of its images, rounded so that the total comes as near as it can, and
    keeps at least one. Groups stay whole, so that with large ones a class may give up less.

    Args:
        labels: Ints `(n,)`.
        fraction: Share to hold out, from 0 to 1.
        seed: Decides which images of a class are held out.
        groups: Ints `(n,)`, equal for images that stay on one side. Default: each by itself.

    Returns:
        The indices kept and the indices held out, both sorted.
    """
    _, members = np.unique(labels, return_inverse=True)
    counts = np.bincount(members)
    order = np.random.default_rng(seed).permutation(len(labels))
    wanted = held_out_counts(counts, fraction)
    if groups is None or len(np.unique(groups)) == len(labels):
        held = [order[members[order] == group][:number] for group, number in enumerate(wanted)]
    else:
        held = _whole_groups(members, wanted, order, groups)
    held_out = np.sort(np.concatenate([np.empty(0, np.int64), *held]))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _whole_groups(
    members: np.ndarray, wanted: np.ndarray, order: np.ndarray, groups: np.ndarray
) -> list[np.ndarray]:
    """Return the groups to hold out: in their order those that fit into what is wanted of a class.

    A class of which none fits gives up its smallest group, as long as one stays to train on.
    """
    by_group: dict[int, list[int]] = {}
    for place in order.tolist():
        by_group.setdefault(int(groups[place]), []).append(place)
    missing, left = wanted.tolist(), np.bincount(members).tolist()
    taken: list[np.ndarray] = []

    def take(places: list[int], excess: int) -> None:
        mine = Counter(members[places].tolist())
        if all(n < left[kind] and n <= missing[kind] + excess for kind, n in mine.items()):
            taken.append(np.array(places))
            for kind, n in mine.items():
                missing[kind] -= n
                left[kind] -= n

    for places in by_group.values():
        take(places, 0)
    for places in sorted(by_group.values(), key=len):
        if any(missing[kind] == wanted[kind] > 0 for kind in members[places].tolist()):
            take(places, len(places))
    return taken


def held_out_counts(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return the number of held-out images per class, by largest remainders.

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
