"""Several processes of this machine on loopback, each as one machine of several."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerastl.errors import TrainingError
from kerastl.machines import raise_on_lost_worker

SCRIPT = Path(__file__).with_name("one_of_several.py")
LIMIT = 240  # seconds after which a machine counts as hung


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def train(folder, count, killed=None, cache="cache"):
    """Run `count` machines to their ends; return exit statuses and what each wrote to stderr.

    `cache` names the folder of their stores; `{}` in it is the number of the machine.
    """
    folder.mkdir(exist_ok=True)
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(count))
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(index), hosts, str(folder), *map(str, killed or [])],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ
            | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERASTL_CACHE_DIR": str(folder / cache.format(index))},
        )
        for index in range(count)
    ]  # fmt: skip
    told = [process.communicate(timeout=LIMIT)[1] for process in processes]
    return [process.returncode for process in processes], told


def weights(folder, index=0):
    with np.load(folder / f"{index}.npz") as file:
        return np.concatenate([file[name].ravel() for name in file.files])


def history(folder, index=0):
    return json.loads((folder / f"{index}.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    statuses, told = train(folder, 1)
    assert statuses == [0], told
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    statuses, told = train(folder, 2)
    assert statuses == [0, 0], told
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    statuses, told = train(folder, 3)
    assert statuses == [0, 0, 0], told
    return folder


@pytest.mark.parametrize("kind", ["UnavailableError", "AbortedError", "CancelledError"])
def test_a_lost_machine_is_told(kind):
    error = getattr(tf.errors, kind)(None, None, "Graph\nCollective ops is aborted by: x\nmore")
    told = r"Another machine was lost.*Start all machines again.*says: Collective ops is aborted"
    with pytest.raises(TrainingError, match=told), raise_on_lost_worker():
        raise error


@pytest.mark.faults
@pytest.mark.parametrize("machines", ["two", "three"])
def test_machines_end_where_one_does(alone, machines, request):
    folder = request.getfixturevalue(machines)
    ended = weights(alone)
    count = len(list(folder.glob("?.npz")))
    assert count == {"two": 2, "three": 3}[machines]
    for index in range(count):
        mine = weights(folder, index)
        assert np.linalg.norm(mine - ended) <= 1e-4 * np.linalg.norm(ended)
        assert np.array_equal(mine, weights(folder))
        told = history(folder, index)
        assert len(told["loss"]) == 10  # the head, and 9 epochs of 6 steps
        assert told["loss"] == pytest.approx(history(alone)["loss"], rel=1e-3)
        assert told["frozen"]
        assert told["chief"] == (index == 0)
    assert len(list((folder / "checkpoints").glob("*.json"))) == 2


@pytest.mark.faults
def test_each_machine_runs_its_share_of_the_frozen_stages(alone, two, three):
    # 66 training images; two views of the embeddings, and two below depth 1.
    assert history(alone)["computed"] == 4 * 66
    assert [history(two, i)["computed"] for i in range(2)] == [4 * 33] * 2
    assert [history(three, i)["computed"] for i in range(3)] == [4 * 22] * 3
    for folder in (two, three):  # the shares were joined, and are gone
        assert sorted(history(folder)["in_store"]) == sorted(history(alone)["in_store"])


@pytest.mark.faults
def test_lost_machines_are_survived_by_starting_all_again(two, tmp_path):
    """First the chief goes on without the other, then the other without the chief.

    Each has a store of its own, so that each makes all of it before the first kill.
    """
    for killed in (1, 0):
        statuses, told = train(tmp_path / "run", 2, killed=[killed], cache="cache-{}")
        assert statuses[killed] == -signal.SIGKILL
        assert statuses[1 - killed] != 0
        if killed == 1:  # without the chief, TensorFlow may end the others itself
            assert statuses[0] == 3
            assert "Another machine was lost" in told[0]
            assert "Start all machines again" in told[0]
    statuses, told = train(tmp_path / "run", 2, cache="cache-{}")
    assert statuses == [0, 0], told
    assert "Continuing with phase fine_tune, epoch 4." in told[0]
    assert [history(tmp_path / "run", i)["computed"] for i in range(2)] == [0, 0]
    for index in range(2):
        assert np.array_equal(weights(tmp_path / "run", index), weights(two))
    assert history(tmp_path / "run")["loss"] == history(two)["loss"]
    in_store = [history(tmp_path / "run", i)["in_store"] for i in range(2)]
    assert [sorted(names) for names in in_store] == [sorted(history(two)["in_store"])] * 2
