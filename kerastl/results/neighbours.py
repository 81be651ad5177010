"""Nearest neighbours of images by their embeddings, and what they say about labels."""

from typing import NamedTuple

import numpy as np

from kerastl._checks import check_int
from kerastl.errors import ArgumentError
from kerastl.results.measures import Measured, share_interval

NUM_NEIGHBOURS = 5  # scikit-learn's default of KNeighborsClassifier
PCA_DIM = 50  # before t-SNE, as scikit-learn's documentation of TSNE advises for many dimensions
PERPLEXITY = 30.0  # scikit-learn's default; van der Maaten and Hinton, 2008, advise 5 to 50
FEW = 1000  # images, whose t-SNE is quicker on one thread
FEWEST_ON_MAP = 5  # images; t-SNE has no neighbours to keep together among fewer


class Neighbours(NamedTuple):
    """The nearest images of each, the nearest first.

    `indices` are ints and `distances` floats, both `(num_images, k)`; a distance is 1 - the cosine
    of the angle between two codes, from 0 to 2.
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest_neighbours(
    codes: np.ndarray, queries: np.ndarray | None = None, *, k: int = NUM_NEIGHBOURS
) -> Neighbours:
    """Return the exact nearest neighbours by cosine distance.

    Args:
        codes: floats `(num_images, dim)`, as from `extract_codes`.
        queries: floats `(num_queries, dim)` whose neighbours in `codes` are searched. Default: each
            row of `codes`, without itself.
        k: number of neighbours, at least 1. Default 5.

    Returns:
        `Neighbours(indices, distances)`, each `(num_queries, k)`.

    Raises:
        ArgumentError: the shapes do not match, or there are fewer than `k` other images.

    Example:
        >>> found = kerastl.nearest_neighbours(codes, kerastl.extract_codes(model, new, at="fc2"))
        >>> [data.train.paths[index] for index in found.indices[0]]
    """
    from sklearn.neighbors import NearestNeighbors

    _check_codes("codes", codes)
    if queries is not None:
        _check_codes("queries", queries, codes.shape[1])
    others = len(codes) - (queries is None)
    check_int("k", k, 1, max(others, 1), f"There are {others} other images.")
    if others < 1:
        raise ArgumentError(f"Neighbours need at least two images. Received: {len(codes)}.")
    index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(codes)
    distances, indices = index.kneighbors(queries)  # without queries, none is its own neighbour
    return Neighbours(indices, np.maximum(distances, 0.0))


def neighbour_votes(labels: np.ndarray, neighbours: Neighbours, num_classes: int) -> np.ndarray:
    """Return the class that most neighbours of each image have, ints `(num_images,)`."""
    voters = labels[neighbours.indices]
    # Of classes with equally many votes the one that has the nearest wins: what is added to the
    # votes of a class stays below one vote, and 1/2 is more than 1/4 + 1/8 + ...
    weights = 1 + 0.5 ** np.arange(1, voters.shape[1] + 1)
    votes = np.zeros((len(voters), num_classes))
    np.add.at(votes, (np.arange(len(voters))[:, np.newaxis], voters), weights)
    return votes.argmax(1)


def neighbour_accuracy(labels: np.ndarray, neighbours: Neighbours, num_classes: int) -> Measured:
    """Return how often the neighbours of an image name its class: leave-one-out k-NN accuracy.

    Args:
        labels: ints `(num_images,)`, 0 to `num_classes - 1`.
        neighbours: of each image among the others.
        num_classes: how many there are.

    Returns:
        `accuracy`, its 95 % `interval` of Wilson, `k` and `num_images`.
    """
    right = int((neighbour_votes(labels, neighbours, num_classes) == labels).sum())
    return {
        "accuracy": right / len(labels),
        "interval": share_interval(right, len(labels)),
        "k": int(neighbours.indices.shape[1]),
        "num_images": len(labels),
    }


def suspicious_labels(labels: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Return the images none of whose neighbours has their label, the nearest neighbours first."""
    alone = np.flatnonzero((labels[neighbours.indices] != labels[:, np.newaxis]).all(1))
    nearness = neighbours.distances[alone].mean(1)
    return alone[np.argsort(nearness, kind="stable")]


def map_codes(codes: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return a place in the plane for each code, `(num_images, 2)`, so that near ones stay near.

    Codes are brought to length 1, so that their distances rank as cosine distances do, reduced to
    50 dimensions by PCA, and laid out by t-SNE (https://jmlr.org/papers/v9/vandermaaten08a.html),
    which keeps neighbours together; how far groups lie apart means nothing.

    Args:
        codes: floats `(num_images, dim)` of at least 5 images; t-SNE of 3,000 takes about 10 s.
        seed: of both.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    _check_codes("codes", codes)
    if len(codes) < FEWEST_ON_MAP:
        raise ArgumentError(f"A map needs at least {FEWEST_ON_MAP} codes. Received: {len(codes)}.")
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    unit = codes / np.maximum(lengths, np.finfo(np.float32).tiny)
    dim = min(PCA_DIM, *unit.shape)
    reduced = PCA(dim, random_state=seed).fit_transform(unit) if dim < unit.shape[1] else unit
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)  # three times as many are looked at
    init = "pca" if dim > 1 else "random"
    layout = TSNE(2, perplexity=perplexity, init=init, random_state=seed)
    # Threads wait for one another at each of the 1,000 steps, which few images do not pay for.
    with threadpool_limits(1 if len(codes) < FEW else None):
        return layout.fit_transform(reduced)


def _check_codes(name: str, codes: np.ndarray, dim: int | None = None) -> None:
    if codes.ndim != 2 or (dim is not None and codes.shape[1] != dim):
        wanted = "dim" if dim is None else dim
        raise ArgumentError(
            f"`{name}` must have the shape (num_images, {wanted}). Received: {codes.shape}. "
            "Pool feature maps (`pool='avg'`), or flatten them: `codes.reshape(len(codes), "
            "-1)`."
        )
