"""Which pictures look alike: a perceptual hash of 128 bits, and the pairs that differ in few."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

SIDE = 9
"""Rows and columns of the gray thumbnail that is hashed."""
ALIKE = 6
"""The most of 128 bits in which two prints of one picture differ."""

_BITS = 128
_BANDS = ALIKE + 1  # two hashes that differ in ALIKE bits agree in at least one of so many bands


def look_of(thumbnail: np.ndarray) -> str:
    """Hash a thumbnail by which of its neighbours are brighter.

    The difference hash of N. Krawetz ("Kind of Like That", hackerfactor.com, 2013), of 8 x 8
    steps to the right and 8 x 8 steps down.

    Args:
        thumbnail: Gray levels `(9, 9)`.

    Returns:
        32 hexadecimal digits; empty for a thumbnail without any step, which says nothing.
    """
    levels = np.asarray(thumbnail, np.int64)
    right, down = np.diff(levels, axis=1)[:8], np.diff(levels, axis=0)[:, :8]
    if not right.any() and not down.any():
        return ""
    bits = np.concatenate([(right > 0).ravel(), (down > 0).ravel()])
    return np.packbits(bits).tobytes().hex()


def alike_pairs(looks: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield each pair of places whose hashes differ in at most `ALIKE` of their bits.

    Args:
        looks: Hashes as `look_of` returns them; empty ones are like nothing.

    Yields:
        `(first, second)` with `first < second`, each pair once, in no order.
    """
    rows = np.array([row for row, look in enumerate(looks) if look], np.int64)
    if not len(rows):
        return
    packed = np.array([list(bytes.fromhex(looks[row])) for row in rows], np.uint8)
    bits = np.unpackbits(packed, axis=1)
    edges = np.linspace(0, _BITS, _BANDS + 1).astype(int)
    seen: set[tuple[int, int]] = set()
    for low, high in itertools.pairwise(edges):
        for bucket in _buckets(bits[:, low:high]):
            for first, second in _near(bits, bucket):
                pair = (int(rows[first]), int(rows[second]))
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _buckets(band: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places of each value of a band that occurs more than once."""
    _, values, counts = np.unique(band, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(values.ravel(), kind="stable")
    for places in np.split(order, np.cumsum(counts)[:-1]):
        if len(places) > 1:
            yield places


def _near(bits: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs among `places`, which are sorted, that differ in at most `ALIKE` bits."""
    mine = bits[places]
    for at in range(len(places) - 1):
        distances = (mine[at + 1 :] != mine[at]).sum(1)
        for offset in np.flatnonzero(distances <= ALIKE):
            yield int(places[at]), int(places[at + 1 + offset])
