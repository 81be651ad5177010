"""Converts a Keras network for each inference library.

A runner takes a list of float arrays, one an input, and gives a list of float32 arrays.
"""

import contextlib
import importlib
import importlib.util
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._streams import held_stderr

Arrays = list[np.ndarray]
Runner = Callable[[Arrays], Arrays]

# LiteRT and OpenVINO are quickest, and most certain to work, on batches of one known size.
BATCH_SIZE = 8
# Larger networks keep their weights beside the graph: as constants in it, the 138 million of VGG16
# with its top took 12.7 GB and 45 CPU seconds before the first image, beside it 3.4 GB and 6.
MOST_CONSTANTS = 10**8


def tensorflow_runner(network: keras.Model, devices: Sequence[str] = ()) -> Runner:
    """Run a network as a TensorFlow graph in which the weights are constants.

    The `devices` share each batch; by default TensorFlow chooses one.
    """
    in_graph = num_parameters(network) <= MOST_CONSTANTS or len(devices) > 1
    function = graph_of_constants(network, batch_size=None, in_graph=in_graph)

    def run(arrays: Arrays) -> Arrays:
        outputs = function(*(tf.cast(array, tf.float32) for array in arrays))
        return [np.asarray(output) for output in outputs]

    def run_on_all(arrays: Arrays) -> Arrays:
        used = devices[: len(arrays[0])]  # no share is empty
        shares = zip(*(np.array_split(array, len(used)) for array in arrays), strict=True)
        started = []
        for device, share in zip(used, shares, strict=True):
            with tf.device(device):  # a GPU computes while the next one is given its share
                started.append(function(*(tf.cast(array, tf.float32) for array in share)))
        return [np.concatenate(parts) for parts in zip(*started, strict=True)]

    return run_on_all if len(devices) > 1 else run


def litert_runner(network: keras.Model) -> Runner:
    """Run a network in the LiteRT interpreter that TensorFlow brings, which uses XNNPACK."""
    concrete = graph_of_constants(network, BATCH_SIZE).get_concrete_function()
    with_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if with_affinity else os.cpu_count() or 1
    with silence():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        content = converter.convert()
        with held_stderr():
            interpreter = tf.lite.Interpreter(model_content=content, num_threads=cores)
            interpreter.allocate_tensors()
    inputs = [tensor["index"] for tensor in interpreter.get_input_details()]
    outputs = [tensor["index"] for tensor in interpreter.get_output_details()]

    def run(arrays: Arrays) -> Arrays:
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return _split_to_batch_size(run)


def openvino_runner(network: keras.Model) -> Runner:
    """Run a network in OpenVINO, in float32."""
    concrete = graph_of_constants(network, BATCH_SIZE).get_concrete_function()
    with tempfile.TemporaryDirectory() as folder:
        model = openvino_model(concrete, Path(folder) / "network.pb")
        compiled = compile_openvino(model)

    def run(arrays: Arrays) -> Arrays:
        results = compiled(arrays)
        return [np.array(results[output]) for output in compiled.outputs]

    return _split_to_batch_size(run)


def openvino_model(concrete: Any, file: Path) -> Any:
    """Return a graph function as OpenVINO reads it from `file`, which is written."""
    openvino = import_openvino()
    file.write_bytes(concrete.graph.as_graph_def().SerializeToString())
    read = openvino.Core().read_model(str(file))
    # The gradients of `swish` leave outputs in the graph that nobody asked for.
    outputs = [read.output(tensor.name).node for tensor in concrete.outputs]
    return openvino.Model(outputs, read.get_parameters(), "kerastl")


def compile_openvino(model: Any) -> Any:
    """Compile a model of OpenVINO, or its file, to run in float32."""
    return import_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


RUNNERS: dict[str, Callable[..., Runner]] = {
    "tensorflow": tensorflow_runner,
    "openvino": openvino_runner,
    "litert": litert_runner,
}


def available_runners() -> list[str]:
    """Return the names of the runners that this installation has."""
    has_openvino = importlib.util.find_spec("openvino") is not None
    has = {"tensorflow": True, "openvino": has_openvino, "litert": hasattr(tf, "lite")}
    return [name for name in RUNNERS if has[name]]


def graph_of_constants(
    network: keras.Model, batch_size: int | None, *, in_graph: bool = True
) -> Any:
    """A `tf.function` of float32 tensors to a list of them, dropout off, weights as they are now.

    Args:
        network: what is run.
        batch_size: of its input; None for any.
        in_graph: whether the graph holds the weights, which are then folded; else they are
            tensors that it reads.
    """
    keep = np.asarray if in_graph else tf.constant
    trainable = [keep(np.asarray(variable)) for variable in network.trainable_variables]
    others = [keep(np.asarray(variable)) for variable in network.non_trainable_variables]

    def call(*images: Any) -> list[Any]:
        outputs, _ = network.stateless_call(
            [tf.convert_to_tensor(value) for value in trainable],
            [tf.convert_to_tensor(value) for value in others],
            images[0] if len(images) == 1 else list(images),
            training=False,
        )
        return [tf.cast(output, tf.float32) for output in keras.tree.flatten(outputs)]

    shapes = [(batch_size, *tensor.shape[1:]) for tensor in network.inputs]
    signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return tf.function(call, input_signature=signature, autograph=False)


def _split_to_batch_size(run: Runner) -> Runner:
    """Let a runner of batches of one size run any number of examples."""

    def run_all(arrays: Arrays) -> Arrays:
        count, parts = len(arrays[0]), []
        for start in range(0, count, BATCH_SIZE):
            batch = [np.asarray(array[start : start + BATCH_SIZE], np.float32) for array in arrays]
            if missing := BATCH_SIZE - len(batch[0]):
                batch = [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in batch]
            parts.append(run(batch))
        return [np.concatenate(outputs)[:count] for outputs in zip(*parts, strict=True)]

    return run_all


def num_parameters(network: keras.Model) -> int:
    """Return how many numbers the weights of a network are."""
    return sum(math.prod(weight.shape) for weight in network.weights)


def import_openvino() -> Any:
    """Import OpenVINO without what reports to its makers over the network, on import already."""
    absent = object()
    telemetry = sys.modules.get("openvino_telemetry", absent)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the import fails
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules["openvino_telemetry"]
        if telemetry is not absent:
            sys.modules["openvino_telemetry"] = telemetry  # type: ignore[assignment]


@contextlib.contextmanager
def silence(name: str = "absl") -> Iterator[None]:
    """Keep back what a converter warns of, and logs: LiteRT that it moves to a package."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
