"""Kills at a few chosen moments; `kills.py` by hand runs many at random ones."""

import io
import json
import os
import signal
import subprocess

import pytest

from tests import command
from tests.faults.kills import (
    assert_same,
    assert_same_chain,
    kerastl,
    kill_chain,
    kill_piece,
    kill_search,
    kill_train,
    write_backbone,
    write_chain,
    write_images,
    write_recipe,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")


class Kill(BaseException):
    """What no `except Exception` catches, as a kill."""


class KillingStream(io.StringIO):
    """Kills who writes a line that begins so."""

    def __init__(self, line):
        super().__init__()
        self.line = line

    def write(self, text):
        if text.startswith(self.line):
            raise Kill
        return super().write(text)


def run_to(line, *arguments):
    """Run the command in this process until it tells a line, and kill it."""
    from kerastl.cli import app

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        patch.setattr("sys.stdout", io.StringIO())
        patch.setattr("sys.stderr", KillingStream(line))
        with pytest.raises(Kill):
            app.app(list(map(str, arguments)), standalone_mode=False)


@pytest.mark.faults
def test_a_killed_train_ends_as_if_it_had_not_been(tmp_path):
    points = [
        "2 classes;",  # before anything is decided
        "above epoch 5",  # between two phases
        "all epoch 5",  # before the result is measured and written
    ]
    assert kill_train(tmp_path, kills=3, points=points) == 3


@pytest.mark.faults
def test_a_search_killed_by_exceptions_ends_as_if_it_had_not_been(tmp_path):
    write_images(tmp_path / "images")
    write_backbone(tmp_path / "backbone.keras")
    search = (
        "search", tmp_path / "images", "--backbone", tmp_path / "backbone.keras", "--tuner",
        "random", "--max-trials", 3, "--epochs", 2, "--resume",
    )  # fmt: skip
    command.kerastl(*search, "--output", tmp_path / "undisturbed")
    for point in ("trial 2 of 3", "head epoch 1"):  # the latter of the training of the best
        run_to(point, *search, "--output", tmp_path / "run")
    assert len(list((tmp_path / "run" / "trials").glob("*.json"))) == 3
    command.kerastl(*search, "--output", tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.sweep
def test_a_killed_search_ends_as_if_it_had_not_been(tmp_path):
    assert kill_search(tmp_path, kills=1, seed=1) >= 1


POINTS = ["above epoch 2", "Step 2 of 2", "For comparison"]


@pytest.mark.faults
def test_a_chain_killed_by_exceptions_ends_as_if_it_had_not_been(tmp_path):
    chain = ("chain", write_chain(tmp_path), "--resume")
    command.kerastl(*chain, "--output", tmp_path / "undisturbed")
    for point in POINTS:
        run_to(point, *chain, "--output", tmp_path / "run")
    command.kerastl(*chain, "--output", tmp_path / "run")
    assert_same_chain(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.sweep
def test_a_killed_chain_ends_as_if_it_had_not_been(tmp_path):
    assert kill_chain(tmp_path, kills=0, points=POINTS) == 3


@pytest.mark.faults
def test_killed_pieces_leave_nothing_half(tmp_path):
    assert kill_piece("extract+export", tmp_path, kills=0, points=["depth 3", "export"]) == 2


@pytest.mark.faults
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
    assert process.returncode == status, told
    assert "--resume." in told.replace("\n", " ")
    assert "Traceback" not in told
    newest = max((tmp_path / "run" / "checkpoints").glob("[0-9]*.json"))
    assert json.loads(newest.read_text())["phase"] == 1
