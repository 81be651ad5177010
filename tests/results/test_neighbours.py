import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.results.neighbours import (
    Neighbours,
    map_codes,
    nearest_neighbours,
    neighbour_accuracy,
    neighbour_votes,
    suspicious_labels,
)


def fan(*degrees):
    """Codes at these angles, of different lengths, which count for nothing."""
    angles = np.deg2rad(degrees)
    lengths = np.arange(1, len(degrees) + 1)[:, np.newaxis]
    return (np.stack([np.cos(angles), np.sin(angles)], 1) * lengths).astype("float32")


def test_the_nearest_by_angle():
    found = nearest_neighbours(fan(0, 10, 30, 100), k=2)
    assert found.indices.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    wanted = 1 - np.cos(np.deg2rad([[10, 30], [10, 20], [20, 30], [70, 90]]))
    np.testing.assert_allclose(found.distances, wanted, atol=1e-6)


def test_queries_are_compared_with_the_codes_alone():
    found = nearest_neighbours(fan(0, 10, 30), fan(28, 1), k=1)
    assert found.indices.tolist() == [[2], [0]]


def test_copies_are_neighbours_at_no_distance():
    found = nearest_neighbours(np.ones((3, 4), "float32"), k=2)
    assert [sorted(row) for row in found.indices.tolist()] == [[1, 2], [0, 2], [0, 1]]
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)
    assert found.distances.min() >= 0


@pytest.mark.parametrize(
    ("neighbours", "vote"),
    [
        ([0, 0, 1, 1, 1], 1),  # three of five, whatever is nearer
        ([1, 0, 0, 1, 2], 1),  # two each: the one that has the nearest
        ([2, 1, 1, 0, 0], 1),
        ([2], 2),
    ],
)
def test_votes(neighbours, vote):
    labels = np.arange(3)
    found = Neighbours(np.array([neighbours]), np.zeros((1, len(neighbours))))
    assert neighbour_votes(labels, found, 3).tolist() == [vote]


def test_accuracy_and_labels_that_look_wrong():
    codes = fan(0, 2, 4, 6, 90, 92, 94, 3, 95)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0])  # the last two are wrong
    found = nearest_neighbours(codes, k=3)
    measured = neighbour_accuracy(labels, found, 2)
    assert measured["accuracy"] == pytest.approx(7 / 9)
    assert (measured["k"], measured["num_images"]) == (3, 9)
    low, high = measured["interval"]
    assert 0.4 < low < 7 / 9 < high < 1
    assert suspicious_labels(labels, found).tolist() == [7, 8]  # the nearer neighbours first


def test_a_map_keeps_groups_together_and_follows_its_seed():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 64)) * 10
    labels = np.arange(60) % 3
    codes = (centres[labels] + rng.normal(size=(60, 64))).astype("float32")
    points = map_codes(codes, seed=1)
    assert points.shape == (60, 2)
    distances = np.linalg.norm(points[:, np.newaxis] - points, axis=2) + 1e9 * np.eye(60)
    assert (labels[distances.argmin(1)] == labels).all()
    np.testing.assert_array_equal(points, map_codes(codes, seed=1))


@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (6, 2000)])
def test_maps_of_few(shape):
    codes = np.random.default_rng(0).normal(size=shape).astype("float32")
    assert np.isfinite(map_codes(codes)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: map_codes(np.ones((4, 3))), "at least 5 codes. Received: 4"),
        (lambda: map_codes(np.ones((9, 2, 2, 3))), r"Received: \(9, 2, 2, 3\). Pool feature maps"),
        (lambda: nearest_neighbours(np.ones((1, 3)), k=1), r"Received: 1\."),
        (lambda: nearest_neighbours(np.ones((3, 3)), k=3), "There are 2 other images"),
        (
            lambda: nearest_neighbours(np.ones((3, 3)), np.ones((1, 2)), k=1),
            r"`queries` must have the shape \(num_images, 3\)",
        ),
    ],
)
def test_what_cannot_be_meant(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
