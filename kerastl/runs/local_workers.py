"""Runs a command in other processes of this machine, as the workers of a search."""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from kerastl.training.workers import ADDRESS, CHIEF, PORT, TUNER_ID, Team


@contextmanager
def local_workers(count: int, directory: Path, command: Sequence[str] = ()) -> Iterator[None]:
    """Start workers, and make this process their chief while the block runs.

    They share the cores of the machine; of several GPUs each gets its own in turn. Their port is
    bound to 127.0.0.1. The command is a program that searches as this one does, without the
    directory. With a count of 0 nothing happens.
    """
    if not count:
        yield
        return
    team = Team(directory)
    team.forget_lost()
    team.join(CHIEF)
    ours = {ADDRESS: "127.0.0.1", PORT: str(_free_port())}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            name = f"worker{index}"
            environment = {**os.environ, **ours, TUNER_ID: name, **_share(index, count)}
            worker = subprocess.Popen(  # noqa: S603
                [*command, "--output", str(directory)],
                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            started.append(worker)
            team.join(name, worker.pid)  # so that one that never comes up is missed
        os.environ |= {**ours, TUNER_ID: CHIEF}
        yield
    finally:
        for variable in (ADDRESS, PORT, TUNER_ID):
            os.environ.pop(variable, None)
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()


def _share(index: int, count: int) -> dict[str, str]:
    """Return the variables that give one of several workers its share of the machine."""
    threads = str(max(1, (os.cpu_count() or 1) // count))
    found = {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}
    gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpus = gpus or [str(i) for i in range(len(tf.config.list_physical_devices("GPU")))]
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return found


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
