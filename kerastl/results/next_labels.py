"""Orders unlabelled images by how much their labels are expected to help."""

import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

MOST_CLUSTERS = 500  # the numbers of this file are those of the authors' code
MINI_BATCHES_FROM = 50  # clusters
SMALLEST_CLUSTER = 5
NUM_NEIGHBOURS = 20


def typical_first(
    pool: np.ndarray, labelled: np.ndarray, count: int, *, seed: int = 0
) -> np.ndarray:
    """Choose images by TypiClust (Hacohen and others, 2022, https://arxiv.org/abs/2202.02794).

    Labelled and unlabelled images are clustered together, into as many clusters as there will be
    labelled images. Each next image is the most typical one of the largest of the clusters with
    the fewest labelled images: that with the smallest mean distance to its 20 nearest neighbours
    of the cluster.

    Args:
        pool: embeddings `(num_images, dim)` of images without label.
        labelled: embeddings `(num_labelled, dim)`; may have no row.
        count: how many to choose, at most `num_images`.
        seed: random seed of the clusters.

    Returns:
        Places in `pool`, ints `(count,)`.
    """
    x = normalize(np.concatenate([labelled, pool]))
    num_clusters = min(len(labelled) + count, MOST_CLUSTERS, len(x))
    kind = MiniBatchKMeans if num_clusters > MINI_BATCHES_FROM else KMeans
    settings = {"batch_size": 5000} if kind is MiniBatchKMeans else {}
    with warnings.catch_warnings():  # of fewer different images than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = kind(num_clusters, n_init=1, random_state=seed, **settings).fit_predict(x)
    sizes = np.bincount(clusters, minlength=num_clusters)
    covered = np.bincount(clusters[: len(labelled)], minlength=num_clusters)
    left = np.arange(len(x)) >= len(labelled)
    chosen = []
    for _ in range(count):
        has_left = np.bincount(clusters[left], minlength=num_clusters) > 0
        # Small clusters come last; then those with the fewest labels, then the largest.
        order = np.lexsort((-sizes, covered, sizes < SMALLEST_CLUSTER, ~has_left))
        mine = np.flatnonzero(clusters == order[0])
        free = mine[left[mine]]
        best = free[_distances(x[free], x[mine]).argmin()]
        left[best] = False
        covered[order[0]] += 1
        chosen.append(best - len(labelled))
    return np.array(chosen, np.int64)


def least_sure_first(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Choose images whose two most probable classes are closest (margin sampling).

    Scheffer and others, 2001. `probabilities` are `(num_images, num_classes)`.
    """
    best = np.sort(probabilities, axis=1)[:, ::-1]
    return np.argsort(best[:, 0] - best[:, 1], kind="stable")[:count]


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean distance of each point to its nearest others, itself among them."""
    k = min(NUM_NEIGHBOURS + 1, len(others))
    return NearestNeighbors(n_neighbors=k).fit(others).kneighbors(points)[0].mean(1)
