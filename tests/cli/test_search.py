import json
import os
import subprocess
import sys

import numpy as np
import pytest

from kerastl.runs import local_workers
from kerastl.runs.run import Run
from kerastl.training.workers import Team
from tests.command import kerastl


def test_a_search_leaves_a_run_and_its_trials(finished_run, tmp_path, monkeypatch):
    output = tmp_path / "run"
    arguments = [
        "search", finished_run.images, "--backbone", finished_run.backbone, "--max-trials", 1,
        "--epochs", 1, "--output", output,
    ]  # fmt: skip
    tracked = []
    monkeypatch.setattr("kerastl.runs.search.load_tracker", tracked.append)
    monkeypatch.setattr(Run, "track", lambda run, name: tracked.append((run.directory, name)))
    metrics = json.loads(kerastl(*arguments, "--json", "--track", "mlflow").stdout)
    assert tracked == ["mlflow", (output, "mlflow")]
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
    # A run is does not overwrite it.
    assert "contains files already" in kerastl(*arguments, status=2).stderr
    monkeypatch.setattr(
        "kerastl.runs.training.TrainingJob.train", lambda job, *_: Run(job.files.directory)
    )
    assert "head" in kerastl(*arguments, "--resume").stdout
    other = kerastl(*arguments, "--resume", "--seed", 1, status=2)
    assert "contains a different search" in other.stderr


def test_wrong_arguments_are_told_before_images_are_read(tmp_path):
    def refused(*arguments):
        return kerastl("search", "nowhere", *arguments, status=2).stderr

    assert "`tuner` must be one of" in refused("--tuner", "grid")
    assert "MobileNet" in refused("--backbone", "MobilNet")
    assert "needs --output" in refused("--resume")
    found = refused("--resume", "--output", tmp_path / "no")
    assert "no such folder or file: 'nowhere'" in found
    assert not (tmp_path / "no").exists()


class Started:
    """Stands for the process of a worker."""

    def __init__(self, number, command, env):
        self.pid, self.command, self.env = number, command, env
        self.ended = []

    def terminate(self):
        self.ended.append("terminated")

    def wait(self):
        self.ended.append("waited for")


def test_a_worker_is_the_same_command_with_its_name_and_share(tmp_path, monkeypatch):
    started = []

    def start(command, *, env, **_):
        started.append(Started(os.getpid(), command, env))
        return started[-1]

    monkeypatch.setattr(local_workers.subprocess, "Popen", start)
    command = [sys.executable, "-m", "kerastl", "search", "images", "--workers", "2"]
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    with local_workers.local_workers(2, tmp_path, command):
        chief = {name: os.environ[f"KERASTUNER_{name}"] for name in ("TUNER_ID", "ORACLE_PORT")}
        assert Team(tmp_path).names() == ["chief", "worker0", "worker1"]
    assert chief["TUNER_ID"] == "chief"
    for number, worker in enumerate(started):
        assert worker.command == [*command, "--output", str(tmp_path)]
        assert worker.env["KERASTUNER_TUNER_ID"] == f"worker{number}"
        assert worker.env["KERASTUNER_ORACLE_IP"] == "127.0.0.1"
        assert worker.env["KERASTUNER_ORACLE_PORT"] == chief["ORACLE_PORT"]
        assert worker.env["TF_NUM_INTRAOP_THREADS"] == "3"
        assert worker.ended == ["terminated", "waited for"]
    assert len(started) == 2
    assert not [name for name in os.environ if name.startswith("KERASTUNER_")]


@pytest.mark.faults
def test_workers_run_the_trials(finished_run, tmp_path):
    output, data = tmp_path / "run", tmp_path / "data.npz"
    labels = np.arange(64) % 2
    images = np.random.default_rng(0).integers(0, 128, (64, 32, 32, 3))
    images = (images + 128 * labels[:, np.newaxis, np.newaxis, np.newaxis]).astype("uint8")
    np.savez(data, x_train=images[:48], y_train=labels[:48], x_test=images[48:], y_test=labels[48:])
    done = subprocess.run(
        [sys.executable, "-m", "kerastl", "search", data, "--backbone",
         finished_run.backbone, "--workers", "2", "--max-trials", "2", "--epochs", "1",
         "--output", output, "--json"],
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
    assert "needs --output" in kerastl("search", "nowhere", status=2).stderr
