"""Groups images that must stay in the same part: copies, and groups of the user."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kerastl.errors import DataError


def join_by_keys(keys: Sequence[Iterable[object]]) -> np.ndarray:
    """Return ints `(n,)`, equal for items that share a key, directly or by way of others."""
    number_of: dict[object, int] = {}
    edges = [
        (item, number_of.setdefault(key, len(number_of)))
        for item, mine in enumerate(keys)
        for key in mine
    ]
    items, numbers = np.array(edges, np.int64).reshape(-1, 2).T
    size = len(keys) + len(number_of)
    ones = np.ones(len(items), np.int8)
    graph = coo_matrix((ones, (items, len(keys) + numbers)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][: len(keys)])


def groups_in_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return what a pattern finds in each name: its groups, or all of it; empty where nothing.

    Raises:
        DataError: it is found in no name.
    """
    found = [re.search(pattern, name) for name in names]
    if names and not any(found):
        raise DataError(
            f"`group_by` matches no image name. Received: {pattern!r}, for names such as "
            f"{names[0]!r}. Correct the pattern."
        )
    return ["" if one is None else repr(one.groups() or one[0]) for one in found]
