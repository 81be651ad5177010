"""Groups near duplicates with a perceptual hash of 128 bits."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kerastl.data.groups import join_by_keys

SIDE = 9
"""Rows and columns of the gray thumbnail that is hashed."""
# docs/checks.md has what was measured.
ALIKE = 6
"""The most of 128 bits in which two prints of one picture differ."""

LEAST_SIDE = 32
"""Pixels of the smallest picture of which a hash says something; of 28 x 28 many look alike."""
_BITS = 128
_MOST_ALIKE = 1000  # hashes with equal bits in a band
_BANDS = ALIKE + 1  # hashes that differ in at most ALIKE bits agree in at least one band


class Print(NamedTuple):
    """A fingerprint of a picture's pixels, the same from a file and from an array."""

    picture: str
    """Equal for equal pixels: of the size, and of the gray levels of the thumbnail."""
    look: str
    """As `difference_hash` returns it; empty for a picture with a side below 32 pixels."""


def print_of(height: int, width: int, levels: bytes) -> Print:
    """Return the print of a picture of that size, from the 81 gray levels of its thumbnail."""
    digest = hashlib.sha256(levels).hexdigest()[:16]
    look = ""
    if min(height, width) >= LEAST_SIDE:
        look = difference_hash(np.frombuffer(levels, np.uint8).reshape(SIDE, SIDE))
    return Print(f"{height}x{width}-{digest}", look)


def difference_hash(thumbnail: np.ndarray) -> str:
    """Hash a thumbnail by which of its neighbours are brighter.

    The difference hash of N. Krawetz ("Kind of Like That", hackerfactor.com, 2013), of 8 x 8
    steps to the right and 8 x 8 steps down.

    Args:
        thumbnail: Gray levels `(9, 9)`.

    Returns:
        32 hexadecimal digits; empty for a thumbnail without any step, which says nothing.
    """
    levels = np.asarray(thumbnail)
    if (levels.ravel()[:-1] == levels[0, 0]).all():
        return ""
    right, down = levels[:8, 1:] > levels[:8, :-1], levels[1:, :8] > levels[:-1, :8]
    return np.packbits(np.concatenate([right.ravel(), down.ravel()])).tobytes().hex()


def group_near_duplicates(looks: Sequence[str]) -> list[list[int]]:
    """Group the places of hashes: each differs from another of its group in at most `ALIKE` bits.

    Args:
        looks: Hashes as `difference_hash` returns them; empty ones are like nothing.

    Returns:
        Sorted groups of at least two, in the order of their first.
    """
    places: dict[str, list[int]] = {}
    for place, look in enumerate(looks):
        if look:
            places.setdefault(look, []).append(place)
    groups = [
        sorted(itertools.chain.from_iterable(places[look] for look in group))
        for group in _joined(list(places))
    ]
    return sorted(group for group in groups if len(group) > 1)


def _joined(looks: Sequence[str]) -> list[list[str]]:
    if not looks:
        return []
    packed = np.array([list(bytes.fromhex(look)) for look in looks], np.uint8)
    bits = np.unpackbits(packed, axis=1)
    keys: list[list[tuple[int, int]]] = [[] for _ in looks]
    edges = np.linspace(0, _BITS, _BANDS + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        for bucket in _buckets(bits[:, low:high]):
            for at, place in enumerate(bucket[:-1].tolist()):
                others = bucket[at + 1 :]
                for other in others[(bits[others] != bits[place]).sum(1) <= ALIKE].tolist():
                    keys[place].append((place, other))
                    keys[other].append((place, other))
    groups: dict[int, list[str]] = {}
    for look, group in zip(looks, join_by_keys(keys).tolist(), strict=True):
        groups.setdefault(group, []).append(look)
    return list(groups.values())


def _buckets(band: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places of each value of a band that occurs more than once, but not all the time.

    What very many hashes share says nothing of them, and to compare them all would take hours.
    """
    _, values, counts = np.unique(band, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(values.ravel(), kind="stable")
    for places in np.split(order, np.cumsum(counts)[:-1]):
        if 1 < len(places) <= _MOST_ALIKE:
            yield places
