import json
import os
import subprocess
import sys

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from kerastl.cli.search import search
from kerastl.errors import ArgumentError, DataError


@pytest.fixture(autouse=True)
def _keep_tensorflow_as_it_is(monkeypatch):
    """In these tests TensorFlow runs already, and determinism would leak into the others."""
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


def command(*arguments):
    app = typer.Typer()
    app.command()(search)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of files, dark and bright, 24 each, and a test part of 8 each."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 8)):
        for name, low in (("dark", 0), ("bright", 128)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(low, low + 100, (40, 30, 3)).astype("uint8")
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


def test_a_search_leaves_a_run_and_its_trials(folder, tmp_path, monkeypatch):
    output = tmp_path / "run"
    how = [folder, "--weights", "embedded", "--max-trials", 1, "--epochs", 1, "--output", output]
    result = command(*how, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    metrics = json.loads(result.stdout)
    found = json.loads((output / "trials.json").read_text())
    assert metrics["search"] == found
    assert [trial["freeze_depth"] for trial in found["trials"]] == [len(found["profile"])]
    assert metrics["recipe"]["reason"].startswith("Best of 1 trials (halving): head alone")
    assert metrics["test"]["accuracy"] == 1.0
    files = {path.name for path in output.iterdir()}
    assert files >= {
        "model.keras", "labels.txt", "recipe.json", "diagnosis.json", "metrics.json", "history.csv",
        "saved_model", "trials.json", "search.json", "trials",
    }  # fmt: skip
    assert isinstance(command(*how).exception, DataError)  # a run is never written over
    monkeypatch.setattr("kerastl.cli.runs.run_recipe", lambda *_, **__: metrics)
    again = command(*how, "--resume")
    assert again.exit_code == 0, (again.output, again.exception)
    assert "head" in again.stdout
    other = command(*how, "--resume", "--seed", 1).exception
    assert "holds another search" in str(other)


def test_wrong_arguments_are_told_before_images_are_read(tmp_path):
    assert "--tuner" in str(command("nowhere", "--tuner", "grid").exception)
    assert isinstance(command("nowhere", "--backbone", "MobilNet").exception, ArgumentError)
    assert "needs --output" in command("nowhere", "--resume").output
    found = command("nowhere", "--resume", "--output", tmp_path / "no").exception
    assert "no such folder or file: 'nowhere'" in str(found)
    assert not (tmp_path / "no").exists()


def test_workers_run_the_trials(folder, tmp_path):
    output = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "kerastl", "search", folder, "--weights", "embedded", "--workers",
         "2", "--max-trials", "2", "--epochs", "1", "--output", output, "--json"],
        capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert len(metrics["search"]["trials"]) == 2
    names = sorted(path.name for path in (output / "trials").iterdir())
    assert [name.split("-worker")[0] for name in names] == ["0000", "0001"]
    assert not list((output / ".workers").iterdir())
    assert "trial 2 of 2" in done.stderr


def test_a_team_needs_a_directory(monkeypatch):
    for name, value in (("TUNER_ID", "worker0"), ("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    assert "needs --output" in command("nowhere").output
