"""Selects the devices of a model, and makes batches that they can share evenly."""

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from kerastl._checks import check_choice
from kerastl.errors import ArgumentError
from kerastl.machines import CLUSTER, set_cluster

STRATEGIES = ("none", "mirrored", "multi_worker")


def resolve_strategy(strategy: Any) -> Any:
    """Return the strategy with this name.

    Args:
        strategy: None for that of the scope this is called in, which is one device outside any;
            `"none"` for one device; `"mirrored"` for all GPUs of this machine
            (`tf.distribute.MirroredStrategy`); `"multi_worker"` for those of all machines that
            `TF_CONFIG` names (`tf.distribute.MultiWorkerMirroredStrategy`), before TensorFlow has
            done anything else; or a `tf.distribute.Strategy`.

    Raises:
        ArgumentError: another name, a strategy with which Keras 3 cannot train, or `TF_CONFIG`
            names no other machine.
    """
    if isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy):
        raise ArgumentError(
            "Keras 3 cannot train under ParameterServerStrategy. Use 'mirrored', 'multi_worker' or "
            "another strategy that trains in step."
        )
    if isinstance(strategy, tf.distribute.Strategy):
        found = strategy
    elif strategy is None or check_choice("strategy", strategy, STRATEGIES) == "none":
        return tf.distribute.get_strategy()
    elif strategy == "mirrored":
        found = tf.distribute.MirroredStrategy()
    else:
        found = _multi_worker()
    several = isinstance(found, tf.distribute.MultiWorkerMirroredStrategy)
    if several and found.num_replicas_in_sync < 2:
        raise ArgumentError(
            f"'multi_worker' needs several machines, and {CLUSTER} lists no machine or only "
            "one. Set it on each machine "
            "(https://www.tensorflow.org/guide/distributed_training#TF_CONFIG), or use "
            "'mirrored' for the GPUs of this one."
        )
    return found


def _multi_worker() -> Any:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ArgumentError(
            f"'multi_worker' must come before anything else that uses TensorFlow: {error} "
            "Make `strategy = tf.distribute.MultiWorkerMirroredStrategy()` the first line "
            "after the imports, and pass `strategy=strategy`."
        ) from error
    except (KeyError, ValueError) as error:
        config = os.environ.get(CLUSTER, "")
        raise ArgumentError(f"{CLUSTER} cannot be used: {error}. {CLUSTER}={config}") from error


def num_replicas(model: keras.Model) -> int:
    """Return how many devices share each batch of a model; 1 unless it was built in a scope."""
    strategy = getattr(model, "distribute_strategy", None)  # of Keras on TensorFlow alone
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)


def scope_of(model: keras.Model) -> AbstractContextManager[object]:
    """Return the scope in which a model was built, where variables of it are to be made."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def devices_of(strategy: Any) -> tuple[str, ...]:
    """Return the names of the devices of this machine that share each batch; none for one alone."""
    several = strategy.num_replicas_in_sync > 1
    return tuple(strategy.extended.worker_devices) if several else ()


def on_one_device(model: keras.Model) -> keras.Model:
    """Return a model to predict with batch by batch: itself, or one that shares its weights.

    Under a strategy `predict_on_batch` hands the whole batch to every replica.
    """
    return model if num_replicas(model) == 1 else keras.Model(model.inputs, model.outputs)


def summed_over_replicas(gradients: list[Any]) -> tuple[list[Any], int]:
    """Return the gradients of the whole batch and of how many replicas they are the sum."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients, 1
    known = [gradient for gradient in gradients if gradient is not None]
    whole = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, known))
    filled = [gradient if gradient is None else next(whole) for gradient in gradients]
    return filled, context.num_replicas_in_sync


def pad_batches(batches: Any, replicas: int) -> Any:
    """Pad each batch to a multiple of the replicas, with weights that mark the added rows.

    Returns:
        A `tf.data.Dataset` of inputs, labels and float32 `(batch,)`: 0 for a row that repeats the
        last, and for one that was there by how much it counts more, so that the mean is 1.
    """

    def fill(inputs: Any, labels: Any) -> Any:
        count = tf.shape(labels)[0]
        missing = -count % replicas

        def longer(tensor: Any) -> Any:
            return tf.concat([tensor, tf.repeat(tensor[-1:], missing, axis=0)], axis=0)

        there = tf.fill([count], tf.cast((count + missing) / count, tf.float32))
        weights = tf.concat([there, tf.zeros(missing)], axis=0)
        return tf.nest.map_structure(longer, inputs), longer(labels), weights

    return batches.map(fill)


def distribute_batches(batches: Any, strategy: Any) -> Any:
    """Return batches that divide by the replicas as a distributed data set of their shares.

    Replica r of n gets the r-th n-th of the rows, on whichever machine it is.
    """

    def of_this_machine(context: Any) -> Any:
        replicas = context.num_replicas_in_sync
        here = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * here

        def cut(*elements: Any) -> Any:
            def pieces(tensor: Any) -> Any:
                shape = tf.concat([[replicas, -1], tf.shape(tensor)[1:]], axis=0)
                found = tf.reshape(tensor, shape)[first : first + here]
                found.set_shape([here, None, *tensor.shape[1:]])
                return found

            return tf.nest.map_structure(pieces, elements)

        return batches.map(cut).unbatch().prefetch(2)

    return strategy.distribute_datasets_from_function(of_this_machine)


def check_accumulation(steps: int | None, model: keras.Model) -> None:
    """Raise if gradients of several steps are to be summed over several devices."""
    if steps and steps > 1 and num_replicas(model) > 1:
        raise ArgumentError(
            f"Keras cannot accumulate gradients over several devices. Received: {steps} "
            f"steps for a model on {num_replicas(model)} devices. Use larger batches, which "
            "the devices share, or train on one device."
        )


def join_cluster(strategy: str, hosts: str | None, index: int | None) -> None:
    """Check the options that name the machines, and set `TF_CONFIG` where they do.

    Raises:
        ArgumentError: a host or an index that cannot be, or without the other.
    """
    check_choice("--strategy", strategy, STRATEGIES)
    if (hosts is None) != (index is None):
        raise ArgumentError("pass both --worker-hosts and --worker-index, or neither.")
    if hosts is None or index is None:
        return
    if strategy != "multi_worker":
        raise ArgumentError("--worker-hosts needs --strategy multi_worker.")
    set_cluster(hosts.split(","), index)
