import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastl.data.partition import held_out_counts, stratified_split

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(np.array)
FRACTIONS = st.floats(0, 0.9)


@given(labels=LABELS, fraction=FRACTIONS, seed=st.integers(0, 10))
@settings(max_examples=200, deadline=None)
def test_a_split_is_a_stratified_partition(labels, fraction, seed):
    kept, held_out = stratified_split(labels, fraction, seed)

    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    for label in np.unique(labels):
        count, held = (labels == label).sum(), (labels[held_out] == label).sum()
        assert held < count
        assert held <= np.floor(count * fraction) + 1
        assert held >= min(np.floor(count * fraction), count - 1)


@given(labels=LABELS, fraction=FRACTIONS)
@settings(max_examples=50, deadline=None)
def test_equal_seeds_give_equal_splits(labels, fraction):
    first, second = (stratified_split(labels, fraction, [3, 1]) for _ in range(2))

    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ([10, 10], 0.2, [2, 2]),
        ([10, 30], 0.15, [2, 4]),  # 1.5 and 4.5 of 6: the first remainder takes the rest
        ([1, 1, 50], 0.5, [0, 0, 25]),
        ([2, 2], 0.9, [1, 1]),
        ([7], 0.0, [0]),
    ],
)
def test_held_out_counts(counts, fraction, expected):
    assert held_out_counts(np.array(counts), fraction).tolist() == expected


def test_another_seed_holds_out_others():
    labels = np.repeat([0, 1], 50)

    first, second = (stratified_split(labels, 0.2, seed)[1] for seed in (0, 1))

    assert first.tolist() != second.tolist()
