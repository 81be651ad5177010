import os
import signal
import subprocess
import sys
import time

import pytest

from kerastl.errors import ArgumentError, TrainingError
from kerastl.training import workers
from kerastl.training.workers import (
    ADDRESS,
    CHIEF,
    PORT,
    TUNER_ID,
    Role,
    Team,
    is_loopback,
    role_of_this_process,
)


@pytest.fixture
def sleeper():
    """A process of this machine that does nothing."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("set_to", "role"),
    [
        ({}, Role("")),
        ({TUNER_ID: "chief", ADDRESS: "127.0.0.1", PORT: "1"}, Role("chief")),
        ({TUNER_ID: "worker0", ADDRESS: "127.0.0.1", PORT: "1"}, Role("worker0")),
    ],
)
def test_the_variables_give_a_process_its_role(monkeypatch, set_to, role):
    for name in (TUNER_ID, ADDRESS, PORT):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    found = role_of_this_process()
    assert found == role
    assert found.is_chief is (found.name == "chief")
    assert found.is_worker is (found.name == "worker0")


@pytest.mark.parametrize(
    ("name", "address", "told"),
    [
        ("chief", None, "Missing: KERASTUNER_ORACLE_IP"),
        ("chief2", "127.0.0.1", "must be 'chief', or a name"),
        ("../a", "127.0.0.1", "must be 'chief', or a name"),
    ],
)
def test_variables_that_cannot_be_meant(monkeypatch, name, address, told):
    monkeypatch.setenv(TUNER_ID, name)
    monkeypatch.setenv(PORT, "1")
    monkeypatch.delenv(ADDRESS, raising=False)
    if address:
        monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(ArgumentError, match=told):
        role_of_this_process()


def test_loopback():
    assert [is_loopback(a) for a in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.1")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_a_process_that_has_ended_is_lost(tmp_path, sleeper):
    team = Team(tmp_path)
    team.join("worker0", sleeper.pid)
    team.join("worker1")
    assert team.names() == ["worker0", "worker1"]
    assert team.lost() == []
    sleeper.kill()
    deadline = time.monotonic() + 30
    while not team.lost() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert team.lost() == ["worker0"]
    assert sleeper.wait() == -signal.SIGKILL  # its status is left to who waits for it
    team.forget_lost()
    assert team.names() == ["worker1"]


def test_a_process_that_falls_silent_is_lost(tmp_path, sleeper, monkeypatch):
    team = Team(tmp_path, silent=5)
    now = 100.0
    monkeypatch.setattr(workers.time, "monotonic", lambda: now)
    team.join("far", sleeper.pid)
    file = team.folder / "far.json"
    file.write_text('{"host": "another.example", "pid": 1}')
    assert not team.is_lost("far")
    now = 104.0
    os.utime(file, (1, 1))  # by a clock that is decades behind
    assert not team.is_lost("far")
    now = 108.9
    assert not team.is_lost("far")
    now = 109.1
    assert team.is_lost("far")


def test_a_member_gives_signs_of_life_and_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.01)
    team = Team(tmp_path)
    with team.member("worker0"):
        file = team.folder / "worker0.json"
        os.utime(file, (1, 1))
        deadline = time.monotonic() + 30
        while file.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.stat().st_mtime > 1
    assert team.names() == []
    with pytest.raises(ValueError, match="odd"), team.member("worker0"):
        raise ValueError("odd")
    assert team.names() == ["worker0"]  # it did not leave in good order


INTERRUPTED = """
import pathlib, signal, sys, time
from kerastl.training import workers

signal.signal(signal.SIGINT, signal.default_int_handler)
workers.BEAT_SECONDS = 0.01
team = workers.Team(pathlib.Path(sys.argv[1]))
team.join(workers.CHIEF, int(sys.argv[2]))
try:
    with team.member("worker0", needs=workers.CHIEF):
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_who_needs_a_process_that_is_lost_is_interrupted(tmp_path, sleeper):
    """In a process of its own: the signal is for the whole process."""
    sleeper.kill()
    sleeper.wait()
    program = [sys.executable, "-c", INTERRUPTED, str(tmp_path), str(sleeper.pid)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\n", done.stderr[-2000:]


def test_waiting_for_a_process_that_ends(tmp_path, sleeper, monkeypatch):
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.04)
    team, file = Team(tmp_path), tmp_path / "diagnosis.json"
    team.join(CHIEF, sleeper.pid)
    file.touch()
    team.wait_for(CHIEF, file)
    file.unlink()
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(TrainingError, match="The chief of the search in .* has ended"):
        Team(tmp_path, silent=0.2).wait_for(CHIEF, file)
