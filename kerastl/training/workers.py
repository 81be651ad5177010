"""The processes that share the trials of a search, and which are alive."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kerastl._atomic import atomic_write_json
from kerastl.errors import ArgumentError, TrainingError

# KerasTuner's own names (https://keras.io/keras_tuner/guides/distributed_tuning/).
TUNER_ID, ADDRESS, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"
WORKERS_FOLDER = ".workers"
CHIEF = "chief"
BEAT_SECONDS, SILENT_SECONDS = 1.0, 60.0


class Role(NamedTuple):
    """What this process does in a search."""

    name: str = ""  # of the process among those of the search; empty where it is alone

    @property
    def is_chief(self) -> bool:
        """Whether it hands out trials, and runs none."""
        return self.name == CHIEF

    @property
    def is_worker(self) -> bool:
        """Whether it runs the trials that a chief hands out."""
        return bool(self.name) and not self.is_chief


def role_of_this_process() -> Role:
    """Return the role that KerasTuner's environment variables give this process."""
    missing = [name for name in (TUNER_ID, ADDRESS, PORT) if not os.environ.get(name)]
    if len(missing) == 3:
        return Role()
    if missing:
        raise ArgumentError(
            f"A search over several processes needs {TUNER_ID}, {ADDRESS} and {PORT}. "
            f"Missing: {', '.join(missing)}. Set all three variables, or none."
        )
    name = os.environ[TUNER_ID]
    plain = name.replace("-", "").replace("_", "").isalnum()
    if not plain or (CHIEF in name and name != CHIEF):
        # KerasTuner takes every name with "chief" in it for the chief's.
        raise ArgumentError(
            f"{TUNER_ID} must be 'chief', or a name of letters, digits, '-' and '_' such as "
            f"'worker0'. Received: {name!r}"
        )
    return Role(name)


def is_loopback(address: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    return address in ("localhost", "::1") or address.startswith("127.")


class Team:
    """The processes of a search, by a file of each in a folder that all see.

    A process is lost when it runs on this machine and has ended without leaving, or when its file
    has not been touched for `silent` seconds, wherever it runs. Clocks of several machines are not
    compared.
    """

    def __init__(self, directory: Path, silent: float = SILENT_SECONDS):
        self.folder = directory / WORKERS_FOLDER
        self.silent = silent
        self._seen: dict[str, tuple[float, float]] = {}

    def join(self, name: str, pid: int | None = None) -> None:
        """Make the file of a process; by default of this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"host": socket.gethostname(), "pid": os.getpid() if pid is None else pid}
        atomic_write_json(self.folder / f"{name}.json", about)

    def leave(self, name: str) -> None:
        """Remove the file of a process."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the processes that have joined and not left."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.json"))

    def wait_for(self, name: str, file: Path) -> None:
        """Wait until a process has joined and a file is there; raise if it was lost before."""
        joined, since = False, time.monotonic()
        while not (joined and file.exists()):
            time.sleep(BEAT_SECONDS / 4)
            there = name in self.names()
            lost = there and self.is_lost(name)
            late = time.monotonic() - since > self.silent
            if (joined and not there) or (lost and (joined or late)):
                raise TrainingError(
                    f"The {name} of the search in {self.folder.parent} has ended. Start it "
                    "again, and then this worker."
                )
            joined = there and not lost

    def forget_lost(self) -> None:
        """Remove the files of an earlier search that was killed."""
        for name in self.lost():
            self.leave(name)

    def lost(self) -> list[str]:
        """Return those that have ended, or fallen silent, without leaving."""
        return [name for name in self.names() if self.is_lost(name)]

    def is_lost(self, name: str) -> bool:
        """Return whether a process has ended, or fallen silent, without leaving."""
        try:
            file = self.folder / f"{name}.json"
            touched = file.stat().st_mtime
            about = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False  # it has just left
        if about["host"] == socket.gethostname() and _has_ended(about["pid"]):
            return True
        before, since = self._seen.get(name, (None, 0.0))
        if touched != before:
            since = time.monotonic()
            self._seen[name] = (touched, since)
        return time.monotonic() - since > self.silent

    @contextlib.contextmanager
    def member(self, name: str, needs: str | None = None) -> Iterator[None]:
        """Be in the team while the block runs: give signs of life, and leave if it goes well.

        When the process that this one `needs` is lost, the main thread gets a `KeyboardInterrupt`,
        since it may be waiting for an answer that never comes.
        """
        self.join(name)
        done = threading.Event()
        beat = threading.Thread(target=self._beat, args=(name, needs, done), daemon=True)
        beat.start()
        try:
            yield
            self.leave(name)
        finally:
            done.set()
            beat.join()

    def _beat(self, name: str, needs: str | None, done: threading.Event) -> None:
        while not done.wait(BEAT_SECONDS):
            if needs is not None and self.is_lost(needs):
                os.kill(os.getpid(), signal.SIGINT)
                return
            try:
                os.utime(self.folder / f"{name}.json")
            except OSError:
                continue  # a full or unreachable folder may come back


def _has_ended(pid: int) -> bool:
    """Return whether a process of this machine has ended; a child is left to who waits for it."""
    with contextlib.suppress(ChildProcessError):
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, how) is not None
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # else it is another user's
    return False
