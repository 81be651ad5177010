"""Communication between the machines that train one model.

Each runs the same program; the first one, the chief, decides and writes.
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerastl._checks import check_int
from kerastl.errors import ArgumentError, TrainingError

CLUSTER = "TF_CONFIG"


class Place(NamedTuple):
    """The number of this machine, from 0, and how many machines there are."""

    number: int
    machines: int


def set_cluster(hosts: Sequence[str], index: int) -> None:
    """Set `TF_CONFIG` for this machine as the one at `index` of `hosts`, each `name:port`.

    Raises:
        ArgumentError: a host without a port, one that comes twice, or no such index.
    """
    wrong = [host for host in hosts if not host.rpartition(":")[0] or not _port(host)]
    if wrong or len(set(hosts)) < len(hosts):
        raise ArgumentError(
            "Each machine must be listed once, as name:port. Received: " + ",".join(hosts)
        )
    check_int("worker index", index, 0, len(hosts) - 1, f"There are {len(hosts)} machines.")
    os.environ[CLUSTER] = json.dumps(
        {"cluster": {"worker": list(hosts)}, "task": {"type": "worker", "index": index}}
    )


def _port(host: str) -> bool:
    port = host.rpartition(":")[2]
    return port.isdecimal() and 0 < int(port) < 65536


def place_of(strategy: Any) -> Place:
    """Return which of the machines of a strategy this one is; the chief is the first."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return Place(0, 1)
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = len(cluster.get("chief", ())), len(cluster.get("worker", ()))
    return Place(resolver.task_id + chiefs * (resolver.task_type != "chief"), chiefs + workers)


def is_chief(strategy: Any) -> bool:
    """Return whether this process is the one that writes: the only one, or the first of several."""
    return place_of(strategy).number == 0


def broadcast_json(strategy: Any, value: Any) -> Any:
    """Return the chief's value, plain as JSON has it, on every machine, when all have asked."""
    return json.loads(broadcast_bytes(strategy, json.dumps(value).encode()))


def broadcast_bytes(strategy: Any, data: bytes) -> bytes:
    """Return the bytes that the chief has, on every machine, when all have asked."""
    words = -(-len(data) // 4)
    size = np.array([words, len(data)], np.int64)
    words, length = _exchanged(strategy, size.view(np.int32), "chief").view(np.int64)
    ours = np.zeros(words, np.int32)
    if is_chief(strategy):
        ours.view(np.uint8)[:length] = np.frombuffer(data, np.uint8)
    return _exchanged(strategy, ours, "chief").tobytes()[:length]


def all_true(strategy: Any, value: bool) -> bool:
    """Return whether the value is true on every machine, when all have asked."""
    (count,) = _exchanged(strategy, np.array([value], np.int32), "all")
    return int(count) == strategy.num_replicas_in_sync


def _exchanged(strategy: Any, values: np.ndarray, whose: str) -> np.ndarray:
    """Return int32 `(n,)` of the chief, or the sum over all replicas."""
    received = _exchange(strategy, whose)(tf.constant(values))
    return np.asarray(strategy.experimental_local_results(received)[0])


@functools.lru_cache(maxsize=2)
def _exchange(strategy: Any, whose: str) -> Any:
    """Return the graph that sends; a new one for each size would be traced again, with a warning.

    Integers are summed, since the sum of a number and zeros is that number to the bit.
    """

    def on_one(values: Any) -> Any:
        context = tf.distribute.get_replica_context()
        counts = whose == "all" or context.replica_id_in_sync_group == 0
        # The identity is made on the replica's device, by which the reduction goes.
        ours = tf.identity(values) if counts else tf.zeros_like(values)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, ours)

    def on_all(values: Any) -> Any:
        return strategy.run(on_one, args=(values,))

    return tf.function(on_all, input_signature=[tf.TensorSpec([None], tf.int32)])


@contextlib.contextmanager
def raise_on_lost_worker() -> Iterator[None]:
    """Say what to do when another machine is lost, which TensorFlow finds in up to half a minute.

    Raises:
        TrainingError: the others of a strategy no longer answer.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise TrainingError(
            "Another machine was lost, and a single machine cannot be replaced. Start all "
            "machines again with the same arguments; with checkpoints they continue after "
            f"the last complete epoch. TensorFlow says: {_gist(str(error))}"
        ) from error


@contextlib.contextmanager
def barrier_at_exit(strategy: Any) -> Iterator[None]:
    """Wait at the end of a block for all machines: one that leaves counts as lost."""
    yield
    if place_of(strategy).machines > 1:
        with raise_on_lost_worker():
            all_true(strategy, True)


def _gist(text: str) -> str:
    """Return the line that says something of a message of TensorFlow's, which has its graph."""
    lines = [line for line in text.splitlines() if "aborted" in line or "unhealthy" in line]
    return (lines or text.splitlines() or ["nothing"])[0][:300]
