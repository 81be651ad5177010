"""Searches in processes of their own, which are killed, alone and in a team."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from kerastl.errors import TrainingError
from kerastl.training.trials import read_json
from kerastl.training.workers import ADDRESS, PORT, TUNER_ID

# `test_search.py` kills a search by exceptions, at each distinct moment.
# KerasTuner 1.4.8 calls `threading.currentThread().getName()`.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")

PROGRAM = """
import sys
import keras, numpy as np
from kerastl.data.load import load_data
from kerastl.training.oracles import SearchSpace
from kerastl.training.search import search

def run(directory):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 200, (60, 16, 16, 3))
    images[np.arange(60), :, :, labels] += 6
    data = load_data((images.astype("uint8"), labels), validation_fraction=0.3, seed=0)
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, 2, name="a")(inputs)
    x = keras.layers.Conv2D(8, 3, 2, name="b")(keras.layers.ReLU()(x))
    backbone = keras.Model(inputs, keras.layers.ReLU()(x))
    space = SearchSpace(learning_rates=(1e-3, 3e-3, 1e-2), max_epochs=3)
    return search(
        data, backbone, space=space, max_trials=11, directory=directory,
        train_best=False, verbose=False,
    )

if __name__ == "__main__":
    run(sys.argv[1])
"""


def run(directory):
    names = {"__name__": "program"}
    exec(PROGRAM, names)
    return names["run"](directory)


def start(directory, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables,
    )  # fmt: skip


def ended_in(directory):
    return sorted((directory / "trials").glob("*.json"))


def wait_for(found, *children):
    """Wait until something is found; fail with what a child said that ended before."""
    deadline = time.monotonic() + 120
    while not found():
        for child in children:
            assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def assert_same(found, expected):
    assert found.best.key == expected.best.key
    assert found.recipe.phases == expected.recipe.phases
    by_key = {trial.key: trial for trial in found.trials}
    assert len(by_key) == len(found.trials) == len(expected.trials)
    for trial in expected.trials:
        assert by_key[trial.key].loss == pytest.approx(trial.loss, rel=1e-4)
        assert by_key[trial.key].score == trial.score


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("search") / "undisturbed")


@pytest.mark.faults
def test_a_killed_search_ends_as_if_it_had_not_been(undisturbed, tmp_path):
    killed, chance = tmp_path / "killed", random.Random(0)
    for ended in (None, 1, 5):  # None: before any trial
        child = start(killed)
        if ended is None:
            wait_for((killed / "search.json").exists, child)
        else:
            wait_for(lambda ended=ended: len(ended_in(killed)) >= ended, child)
        time.sleep(0.15 * chance.random())
        kill(child)
    before = {path: path.stat().st_mtime_ns for path in ended_in(killed)}
    assert 5 <= len(before) < len(undisturbed.trials)
    resumed = run(killed)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert [trial.key for trial in resumed.trials] == [trial.key for trial in undisturbed.trials]
    assert_same(resumed, undisturbed)


# ---- chief and workers


@pytest.fixture
def chief(monkeypatch):
    """This process is the chief of a search; the variables that make another one its worker."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        where = {ADDRESS: "127.0.0.1", PORT: str(one.getsockname()[1])}
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(TUNER_ID, "chief")
    return where


@pytest.mark.faults
def test_a_worker_that_dies_loses_no_trial(undisturbed, tmp_path, chief):
    shared = tmp_path / "shared"
    workers = [start(shared, **chief, **{TUNER_ID: f"worker{i}"}) for i in range(2)]
    killer = subprocess.Popen([sys.executable, "-c", KILLER, str(shared), str(workers[0].pid)])
    found = run(shared)
    assert killer.wait() == 0
    said = [worker.communicate(timeout=240)[1] for worker in workers]
    assert workers[0].returncode == -signal.SIGKILL
    assert workers[1].returncode == 0, said[1]
    assert_same(found, undisturbed)
    writers = [path.stem.split("-")[1] for path in ended_in(shared)]
    assert writers[-1] == "worker1"
    assert set(writers) == {"worker0", "worker1"}
    assert not list((shared / ".workers").iterdir())


KILLER = """
import os, signal, sys, time
from pathlib import Path

trials, pid = Path(sys.argv[1]) / "trials", int(sys.argv[2])
while not list(trials.glob("*-worker0.json")) or not list(trials.glob("*-worker1.json")):
    time.sleep(0.01)
os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.faults
def test_a_chief_whose_workers_all_died_says_so(tmp_path, chief):
    shared = tmp_path / "shared"
    worker = start(shared, **chief, **{TUNER_ID: "worker0"})
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER.replace("worker1", "worker0"), str(shared), str(worker.pid)]
    )
    with pytest.raises(TrainingError, match=r"ended \(worker0\) but trials are left"):
        run(shared)
    assert killer.wait() == 0
    worker.communicate()
    assert all(read_json(path)["status"] == "completed" for path in ended_in(shared))


@pytest.mark.faults
def test_a_worker_whose_chief_died_says_so(tmp_path, chief):
    shared = tmp_path / "shared"
    one = start(shared, **chief, **{TUNER_ID: "chief"})
    worker = start(shared, **chief, **{TUNER_ID: "worker0"})
    wait_for(lambda: ended_in(shared), one, worker)
    kill(one)
    said = worker.communicate(timeout=240)[1]
    assert worker.returncode == 1
    assert "The chief of the search has ended. Start it again with the same directory" in said


def test_the_port_is_taken(tmp_path, chief, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        os.environ[PORT] = str(other.getsockname()[1])
        with pytest.raises(TrainingError, match=r"port 127.0.0.1:\d+ .* cannot be opened"):
            run(tmp_path / "shared")


def test_a_port_that_others_reach_is_warned_of(tmp_path, chief, monkeypatch, capsys):
    monkeypatch.setenv(ADDRESS, "0.0.0.0")
    monkeypatch.setattr(
        "kerastl.training.search._membership", lambda *_: (_ for _ in ()).throw(InterruptedError)
    )
    with pytest.raises(InterruptedError):
        run(tmp_path / "shared")
    assert "without authentication" in capsys.readouterr().err
