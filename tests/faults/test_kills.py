"""Kills at a few chosen moments; `kills.py` by hand runs many at random ones."""

import json
import os
import signal
import subprocess

import pytest

from tests.faults.kills import (
    kerastl,
    kill_chain,
    kill_piece,
    kill_search,
    kill_train,
    write_images,
    write_recipe,
)

pytestmark = pytest.mark.faults


def test_a_killed_train_ends_as_if_it_had_not_been(tmp_path):
    points = [
        "2 classes;",  # before anything is decided
        "above epoch 5",  # between two phases
        "all epoch 5",  # before the result is measured and written
    ]
    assert kill_train(tmp_path, kills=3, points=points) == 3


def test_a_killed_search_ends_as_if_it_had_not_been(tmp_path):
    assert kill_search(tmp_path, kills=1, seed=1) >= 1


def test_a_killed_chain_ends_as_if_it_had_not_been(tmp_path):
    points = ["Step 2 of 2", "above epoch 2", "To compare"]
    assert kill_chain(tmp_path, kills=0, points=points) == 3


@pytest.mark.parametrize(
    ("what", "points"), [("extract", ["depth 1", "depth 3"]), ("export", ["export"])]
)
def test_a_killed_piece_leaves_nothing_half(tmp_path, what, points):
    assert kill_piece(what, tmp_path, kills=0, points=points) == len(points)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_train_says_how_to_go_on(tmp_path, number, status):
    write_images(tmp_path / "images")
    write_recipe(tmp_path / "recipe.json", epochs=50)
    process = subprocess.Popen(
        kerastl("train", tmp_path / "images", "--recipe", tmp_path / "recipe.json", "--output",
                tmp_path / "run"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"KERASTL_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("above epoch 2"):
            process.send_signal(number)
            break
    _, told = process.communicate(timeout=300)
    assert process.returncode == status
    assert "--resume goes on." in told.replace("\n", " ")
    assert "Traceback" not in told
    newest = max((tmp_path / "run" / "checkpoints").glob("[0-9]*.json"))
    assert json.loads(newest.read_text())["phase"] == 1
