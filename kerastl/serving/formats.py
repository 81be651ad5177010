"""The formats that a model can be exported to, each with how it is written."""

import contextlib
import importlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._checks import check_choice, check_packages
from kerastl.errors import ArgumentError
from kerastl.frozen.runners import graph_of_constants, import_openvino, silence, silent_stderr

OPSET = 17
"""The version of ONNX's operations: the first that holds LayerNormalization, which ConvNeXt has."""


@dataclass(frozen=True)
class Format:
    """A kind of file that a model is exported to.

    Args:
        name: what `formats` calls it.
        file: its path below the folder of the version.
        tolerance: the largest difference of a probability from the Keras model's.
        agreement: the least share of images that get the Keras model's label.
        extra: of `pip install 'kerastl[...]'`, where it needs one.
        packages: what that extra has to bring.
    """

    name: str
    file: str
    tolerance: float
    agreement: float = 0.0
    extra: str = ""
    packages: tuple[str, ...] = ()


# 1e-5 is what float32 loses when sums are reordered; a wrong layer or a lost preprocessing shows at
# 1e-2. What is rounded on purpose is held to its labels instead.
FORMATS: tuple[Format, ...] = (
    Format("saved_model", "saved_model.pb", 1e-5),
    Format("litert", "model.tflite", 1e-4),
    Format("litert_fp16", "model_fp16.tflite", 2e-2, 0.95),
    Format("litert_dynamic", "model_dynamic.tflite", 1.0, 0.85),
    Format("litert_int8", "model_int8.tflite", 1.0, 0.8),
    Format("onnx", "model.onnx", 1e-4, extra="onnx", packages=("onnx", "tf2onnx", "onnxruntime")),
    Format("openvino", "openvino/model.xml", 1e-4, extra="openvino", packages=("openvino",)),
)
BY_NAME = {format_.name: format_ for format_ in FORMATS}


def checked_formats(names: Sequence[str]) -> list[Format]:
    """Return the formats of those names, each once, in the order of the table.

    Raises:
        ArgumentError: a name is unknown, there is none, or a package is missing.
    """
    if isinstance(names, str):
        names = (names,)
    for name in names:
        check_choice("formats", name, BY_NAME)
    if not names:
        raise ArgumentError(
            f"`formats` must name at least one of {', '.join(BY_NAME)}. Received none."
        )
    chosen = [format_ for format_ in FORMATS if format_.name in names]
    for format_ in chosen:
        check_packages(f"The format {format_.name!r}", format_.packages, format_.extra)
    return chosen


def write_format(
    format_: Format,
    network: keras.Model,
    path: Path,
    *,
    class_names: Sequence[str],
    representative: np.ndarray,
) -> None:
    """Write a network from pixels to probabilities in another format than SavedModel.

    Args:
        format_: of `FORMATS`.
        network: pixels to `[embedding, probabilities]`.
        path: the folder of the version.
        class_names: go into the metadata.
        representative: real images uint8 `(n, height, width, 3)`, for `litert_int8`.
    """
    file = path / format_.file
    file.parent.mkdir(exist_ok=True)
    classifier = keras.Model(network.inputs, network.outputs[1])
    _WRITERS[format_.name](classifier, file, class_names, representative)


def _write_litert(
    classifier: keras.Model,
    file: Path,
    class_names: Sequence[str],
    configure: Callable[[Any], None],
) -> None:
    """Convert to LiteRT, a batch of one, and append the labels as its tools do: as a zip file."""
    module = tf.Module()
    module.run = _named(classifier, 1)
    with silence(), silent_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [module.run.get_concrete_function()], module
        )
        configure(converter)
        content = converter.convert()
    labels = io.BytesIO()
    with zipfile.ZipFile(labels, "w") as archive:
        archive.writestr("labels.txt", "".join(f"{name}\n" for name in class_names))
    file.write_bytes(content + labels.getvalue())


def _litert(
    classifier: keras.Model, file: Path, class_names: Sequence[str], representative: np.ndarray
) -> None:
    del representative
    _write_litert(classifier, file, class_names, lambda converter: None)


def _litert_fp16(
    classifier: keras.Model, file: Path, class_names: Sequence[str], representative: np.ndarray
) -> None:
    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    del representative
    _write_litert(classifier, file, class_names, configure)


def _litert_dynamic(
    classifier: keras.Model, file: Path, class_names: Sequence[str], representative: np.ndarray
) -> None:
    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    del representative
    _write_litert(classifier, file, class_names, configure)


def _litert_int8(
    classifier: keras.Model, file: Path, class_names: Sequence[str], representative: np.ndarray
) -> None:
    """Write integers all the way: uint8 pixels in, uint8 probabilities (times 256) out."""

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [image[np.newaxis].astype("float32")] for image in representative
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8

    _write_litert(classifier, file, class_names, configure)


def _onnx(
    classifier: keras.Model, file: Path, class_names: Sequence[str], representative: np.ndarray
) -> None:
    del representative
    function = _named(classifier, None)
    with _quiet_tf2onnx():
        tf2onnx = importlib.import_module("tf2onnx")
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=OPSET
        )
    entry = proto.metadata_props.add()
    entry.key, entry.value = "labels", json.dumps(list(class_names), ensure_ascii=False)
    file.write_bytes(proto.SerializeToString())


def _openvino(
    classifier: keras.Model, file: Path, class_names: Sequence[str], representative: np.ndarray
) -> None:
    del representative
    openvino = import_openvino()
    concrete = _named(classifier, None).get_concrete_function()
    graph = file.with_suffix(".pb")
    graph.write_bytes(concrete.graph.as_graph_def().SerializeToString())
    read = openvino.Core().read_model(str(graph))
    # The gradients of `swish` leave outputs in the graph that nobody asked for.
    outputs = [read.output(tensor.name).node for tensor in concrete.outputs]
    pruned = openvino.Model(outputs, read.get_parameters(), "kerastl")
    pruned.inputs[0].set_names({"image"})
    pruned.outputs[0].set_names({"probabilities"})
    # Separated by spaces, as OpenVINO's Model API reads them.
    labels = " ".join(name.replace(" ", "_") for name in class_names)
    pruned.set_rt_info(labels, ["model_info", "labels"])
    openvino.save_model(pruned, str(file), compress_to_fp16=False)
    graph.unlink()


_WRITERS: dict[str, Callable[[keras.Model, Path, Sequence[str], np.ndarray], None]] = {
    "litert": _litert,
    "litert_fp16": _litert_fp16,
    "litert_dynamic": _litert_dynamic,
    "litert_int8": _litert_int8,
    "onnx": _onnx,
    "openvino": _openvino,
}


def _named(classifier: keras.Model, batch_size: int | None) -> Any:
    """Return a graph function without variables, from `image` to `probabilities`."""
    constants = graph_of_constants(classifier, batch_size)
    shape = (batch_size, *classifier.inputs[0].shape[1:])

    def run(image: Any) -> dict[str, Any]:
        return {"probabilities": constants(image)[0]}

    return tf.function(run, input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])


@contextlib.contextmanager
def _quiet_tf2onnx() -> Iterator[None]:
    """Keep back the converter's log of its optimisations, and what its imports warn of."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
