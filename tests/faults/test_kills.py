"""A few kills at random moments; `kills.py` by hand runs many."""

import pytest
from kills import kill_piece, kill_search, kill_train


def test_a_killed_train_ends_as_if_it_had_not_been(tmp_path):
    assert kill_train(tmp_path, kills=2, seed=1) >= 2


def test_a_killed_search_ends_as_if_it_had_not_been(tmp_path):
    assert kill_search(tmp_path, kills=1, seed=1) >= 1


@pytest.mark.parametrize("what", ["extract", "export"])
def test_a_killed_piece_leaves_nothing_half(tmp_path, what):
    assert kill_piece(what, tmp_path, kills=1, seed=1) >= 1
