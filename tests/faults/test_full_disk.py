"""A full disk: a sentence, the last good files whole, and the same result once there is room."""

import json
import os
import subprocess

import pytest

from tests.faults.kills import assert_same, kerastl, write_images, write_recipe


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, whose size can be set."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(made, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount`")
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.fixture
def run(tmp_path):
    """A function that runs the command; it gives the exit status and stderr."""
    write_images(tmp_path / "images", count=12)
    write_recipe(tmp_path / "recipe.json", epochs=2)
    environment = os.environ | {
        "KERASTL_CACHE_DIR": str(tmp_path / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"
    }  # fmt: skip

    def run(*arguments):
        done = subprocess.run(
            kerastl(*arguments), capture_output=True, text=True, env=environment, timeout=300
        )
        return done.returncode, done.stderr

    return run


def check_is_told(found):
    status, told = found
    assert status == 1, told
    assert "No space left on device" in told
    assert "Make room" in told
    assert "Traceback" not in told


def test_train(disk, run, tmp_path):
    train = ("train", tmp_path / "images", "--recipe", tmp_path / "recipe.json", "--resume")
    assert run(*train, "--output", tmp_path / "undisturbed")[0] == 0
    resize(disk, "2m")  # not enough for a checkpoint of what trains
    check_is_told(run(*train, "--output", disk / "run"))
    kept = sorted((disk / "run" / "checkpoints").glob("[0-9]*.json"))
    assert json.loads(kept[-1].read_text())["phase"] == 1  # the head
    resize(disk, "12m")  # not enough for the export
    check_is_told(run(*train, "--output", disk / "run"))
    assert not (disk / "run" / "metrics.json").exists()
    assert not list((disk / "run" / "saved_model").iterdir())
    resize(disk, "30m")
    status, told = run(*train, "--output", disk / "run")
    assert status == 0, told
    assert_same(disk / "run", tmp_path / "undisturbed")


def test_search(disk, run, tmp_path):
    search = (
        "search", tmp_path / "images", "--weights", "embedded", "--image-size", 48, "--tuner",
        "random", "--max-trials", 2, "--epochs", 1, "--resume",
    )  # fmt: skip
    assert run(*search, "--output", tmp_path / "undisturbed")[0] == 0
    resize(disk, "8k")  # not enough for what a search keeps of its trials
    check_is_told(run(*search, "--output", disk / "run"))
    resize(disk, "2m")  # not enough to train the best
    check_is_told(run(*search, "--output", disk / "run"))
    resize(disk, "60m")
    status, told = run(*search, "--output", disk / "run")
    assert status == 0, told
    assert_same(disk / "run", tmp_path / "undisturbed")


def test_export(disk, run, tmp_path):
    train = ("train", tmp_path / "images", "--recipe", tmp_path / "recipe.json", "--epochs", 1)
    assert run(*train, "--output", tmp_path / "run")[0] == 0
    resize(disk, "5m")
    export = ("export", tmp_path / "run", "--output", disk / "served")
    assert run(*export)[0] == 0
    check_is_told(run(*export))
    assert [path.name for path in (disk / "served").iterdir()] == ["1"]
    assert (disk / "served" / "1" / "saved_model.pb").is_file()
    resize(disk, "30m")
    assert run(*export)[0] == 0
    assert sorted(path.name for path in (disk / "served").iterdir()) == ["1", "2"]
