"""Engines for a frozen prefix, each checked against Keras before use."""

import contextlib
import json
import os
import platform
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._atomic import atomic_write_json
from kerastl._checks import check_choice
from kerastl.errors import ArgumentError, ExportError, KerastlError
from kerastl.frozen.fingerprint import graph_hash, text_hash
from kerastl.frozen.runners import (
    MOST_CONSTANTS,
    RUNNERS,
    Arrays,
    Runner,
    available_runners,
    num_parameters,
)

ENGINES = ("auto", *RUNNERS)
TOLERANCE = 1e-3
SAMPLE_SIZE = 8

# Seen on two cores with MobileNetV2, EfficientNetB0 and ResNet50: the time an image, as a share of
# TensorFlow's (XNNPACK, in LiteRT, shines where convolutions are depthwise), and the seconds to
# build an engine, of which the second number is for each million parameters.
_SECONDS = {"openvino": 0.95, "tensorflow": 1.0, "litert": 1.1}
_SECONDS_DEPTHWISE = {"litert": 0.6, "openvino": 0.7, "tensorflow": 1.0}
_BUILD_SECONDS = {"openvino": (0.5, 0.08), "tensorflow": (0.6, 0.11), "litert": (0.9, 0.28)}
_DOUBT = 0.8  # on another machine an engine may need this share of what is expected here,
_MARGIN = 5  # but seldom does: what it could save must be so many times what building it takes
_FEW_IMAGES = 400  # so many take less time than engines differ in building

# Which engine was the quickest, by network and device, in this process.
_choices: dict[str, str] = {}


class Engine:
    """A network in one library, as a function of arrays.

    Calling it with an array `(batch, ...)` (or a list of them, one an input) of any real dtype
    gives a list of float32 arrays, one an output.

    Attributes:
        name: `"tensorflow"`, `"openvino"` or `"litert"`.
        max_relative_difference: Largest `max|engine - keras| / max|keras|` of an output on the
            sample that it started with.
        images_per_second: Seen on that sample; None when it was not measured.
    """

    def __init__(self, name: str, run: Runner, max_relative_difference: float):
        self.name = name
        self.max_relative_difference = max_relative_difference
        self.images_per_second: float | None = None
        self._run = run

    def __call__(self, inputs: Any) -> Arrays:
        """Run the network on a batch of any size."""
        return self._run(_listed(inputs))

    def __repr__(self) -> str:
        return f"Engine({self.name!r})"


def make_engine(
    prefix: keras.Model,
    *,
    engine: str = "auto",
    sample: Any,
    num_images: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    devices: Sequence[str] = (),
) -> Engine:
    """Return the fastest way to run a frozen network that agrees with Keras.

    Dropout and stochastic depth are off and BatchNormalization uses its moving statistics,
    whatever the layers' flags; weights are as they are now.

    Args:
        prefix: Functional `keras.Model`.
        engine: `"tensorflow"` (a graph of constants), `"openvino"` (needs that package),
            `"litert"`, or `"auto"`: TensorFlow on a GPU and for more than 100 million parameters,
            else the quickest on the sample.
        sample: A batch of real inputs, or a list of them, one an input; the first 8 are used.
        num_images: How many will be run. `"auto"` starts with the engine that should be quickest
            for so many, and tries another only where it could save several times what building it
            takes. Default: any number, and all are tried.
        directory: Where `"auto"` remembers its choices for other processes. Default: it does so
            in this process alone.
        devices: Names of those that share each batch with the engine "tensorflow".

    Returns:
        An `Engine`.

    Raises:
        ArgumentError: There is no such engine here.
        KerastlError: The engine cannot run the network, or differs by more than 1e-3.
    """
    check_choice("engine", engine, ENGINES)
    inputs = [np.asarray(array[:SAMPLE_SIZE]) for array in _listed(sample)]
    expected = _run_keras(prefix, inputs)
    candidates = available_runners()
    # The others hold several copies of the weights.
    is_large = num_parameters(prefix) > MOST_CONSTANTS
    if engine == "auto" and (
        is_large or tf.config.list_logical_devices("GPU") or len(candidates) == 1
    ):
        engine = "tensorflow"
    if engine != "auto":
        return _start(engine, prefix, inputs, expected, devices)
    file = None if directory is None else Path(directory) / "engines.json"
    device = f"{platform.machine()} {platform.processor()} {os.cpu_count()} tf{tf.__version__}"
    key = text_hash([graph_hash(prefix), device, candidates])
    remembered = _choices.get(key) or _choices_in(file).get(key)
    if remembered in candidates:
        with contextlib.suppress(KerastlError):
            return _start(remembered, prefix, inputs, expected)
    chosen, all_tried = _fastest(prefix, inputs, expected, num_images)
    if all_tried:
        _choices[key] = chosen.name
        if file is not None:
            with contextlib.suppress(OSError, ExportError):  # a lost choice is measured again
                file.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_json(file, {**_choices_in(file), key: chosen.name})
    return chosen


def _choices_in(file: Path | None) -> dict[str, str]:
    try:
        found = json.loads(file.read_text()) if file else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def max_relative_difference(outputs: Arrays, expected: Arrays) -> float:
    """Return the largest `max|output - expected| / max|expected|` of the pairs; inf if none fit."""
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        return float("inf")
    ratios = [
        float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30))
        for a, b in zip(outputs, expected, strict=True)
    ]
    return max((ratio if np.isfinite(ratio) else float("inf") for ratio in ratios), default=0.0)


def _listed(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _run_keras(network: keras.Model, inputs: Arrays) -> Arrays:
    def call(tensors: Any) -> Any:
        outputs = network(tensors[0] if len(tensors) == 1 else tensors, training=False)
        return [tf.cast(output, tf.float32) for output in keras.tree.flatten(outputs)]

    # Half precision rounds otherwise in a graph, which is what `predict` runs; float32 does not,
    # and is spared the tracing.
    dtypes = {str(layer.compute_dtype) for layer in network._flatten_layers()}
    run = tf.function(call) if dtypes & {"bfloat16", "float16"} else call
    return [np.asarray(output) for output in run([tf.cast(array, tf.float32) for array in inputs])]


def _start(
    name: str, network: keras.Model, inputs: Arrays, expected: Arrays, devices: Sequence[str] = ()
) -> Engine:
    """Build an engine; raise unless it agrees with Keras."""
    if name not in available_runners():
        raise ArgumentError(
            f"Engine {name!r} is not installed. Received: engine={name!r}. Install it (`pip "
            f"install kerastl[{name}]`), or use engine='auto'."
        )
    try:
        several = {"devices": devices} if name == "tensorflow" else {}
        run = RUNNERS[name](network, **several)
        difference = max_relative_difference(run(inputs), expected)
    except Exception as error:  # each library has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KerastlError(
            f"Engine {name!r} cannot run {network.name!r}: {reason[:300]} "
            "Use engine='auto' or engine='tensorflow'."
        ) from error
    if not difference <= TOLERANCE:
        raise KerastlError(
            f"Engine {name!r} disagrees with Keras on {network.name!r}: the largest difference is "
            f"{difference:.2g} of the largest value; at most {TOLERANCE:g} is allowed. "
            "Use engine='auto' or engine='tensorflow'."
        )
    return Engine(name, run, difference)


def _fastest(
    network: keras.Model, inputs: Arrays, expected: Arrays, num_images: int | None
) -> tuple[Engine, bool]:
    """The quickest engine on the sample, and whether all were tried."""
    seconds = _SECONDS_DEPTHWISE if _has_depthwise(network) else _SECONDS
    building = {
        name: a + b * num_parameters(network) / 1e6 for name, (a, b) in _BUILD_SECONDS.items()
    }
    few = num_images is not None and num_images < _FEW_IMAGES
    best: Engine | None = None
    failure, all_tried = None, True
    for name in sorted(available_runners(), key=(building if few else seconds).__getitem__):
        if best is not None and num_images is not None:
            gain = 1 - _DOUBT * seconds[name] / seconds[best.name]
            if gain * num_images / _speed(best) < _MARGIN * building[name]:
                all_tried = False
                continue
        try:
            candidate = _measured(_start(name, network, inputs, expected), inputs)
        except KerastlError as error:
            failure = error
            warnings.warn(f"{error} kerastl does not use it.", stacklevel=2)
            continue
        best = candidate if best is None else max(best, candidate, key=_speed)
    if best is None:
        raise failure or KerastlError("No engine is available.")
    return best, all_tried


def _has_depthwise(network: keras.Model) -> bool:
    layers = network._flatten_layers()
    return any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in layers)


def _measured(engine: Engine, inputs: Arrays) -> Engine:
    """Give an engine its speed: the best of two runs, since others may use the machine."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        engine(inputs)
        seconds.append(time.perf_counter() - start)
    engine.images_per_second = len(inputs[0]) / max(min(seconds), 1e-9)
    return engine


def _speed(engine: Engine) -> float:
    return engine.images_per_second or 0.0
