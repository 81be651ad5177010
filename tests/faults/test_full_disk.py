"""A full disk: a sentence, the last good files whole, and the same result once there is room."""

import json
import subprocess

import pytest

from tests.command import kerastl
from tests.faults.kills import assert_same, write_images, write_recipe

pytestmark = pytest.mark.faults


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
def folder(tmp_path, monkeypatch):
    """A folder of images and a recipe, with a cache of activations that is not on the disk."""
    write_images(tmp_path / "images", count=12)
    write_recipe(tmp_path / "recipe.json", epochs=2)
    monkeypatch.setenv("KERASTL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def check_is_told(told):
    assert "No space left on device" in told
    assert "Free some disk space" in told


def test_train(disk, folder):
    train = ("train", folder / "images", "--recipe", folder / "recipe.json", "--resume")
    kerastl(*train, "--output", folder / "undisturbed")
    resize(disk, "2m")  # not enough for a checkpoint of what trains
    check_is_told(kerastl(*train, "--output", disk / "run", status=1).stderr)
    kept = sorted((disk / "run" / "checkpoints").glob("[0-9]*.json"))
    assert json.loads(kept[-1].read_text())["phase"] == 1  # the head
    resize(disk, "8600k")  # not enough for the export
    check_is_told(kerastl(*train, "--output", disk / "run", status=1).stderr)
    assert not (disk / "run" / "metrics.json").exists()
    assert not list((disk / "run" / "saved_model").iterdir())
    resize(disk, "30m")
    kerastl(*train, "--output", disk / "run")
    assert_same(disk / "run", folder / "undisturbed")


def test_search(disk, folder):
    search = (
        "search", folder / "images", "--backbone", folder / "backbone.keras", "--tuner", "random",
        "--max-trials", 2, "--epochs", 1, "--resume",
    )  # fmt: skip
    kerastl(*search, "--output", folder / "undisturbed")
    resize(disk, "8k")  # not enough for what a search keeps of its trials
    check_is_told(kerastl(*search, "--output", disk / "run", status=1).stderr)
    resize(disk, "800k")  # not enough to train the best
    check_is_told(kerastl(*search, "--output", disk / "run", status=1).stderr)
    resize(disk, "60m")
    kerastl(*search, "--output", disk / "run")
    assert_same(disk / "run", folder / "undisturbed")


def test_export(disk, finished_run):
    resize(disk, "30m")
    export = ("export", finished_run.directory, "--output", disk / "served")
    kerastl(*export)
    used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
    resize(disk, int(used * 1.6))  # not enough for a second one
    check_is_told(kerastl(*export, status=1).stderr)
    assert [path.name for path in (disk / "served").iterdir()] == ["1"]
    assert (disk / "served" / "1" / "saved_model.pb").is_file()
    resize(disk, "30m")
    kerastl(*export)
    assert sorted(path.name for path in (disk / "served").iterdir()) == ["1", "2"]
