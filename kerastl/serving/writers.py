"""Writes a network in each format other than SavedModel."""

import contextlib
import importlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._streams import held_stderr
from kerastl.frozen.runners import (
    graph_of_constants,
    import_openvino,
    openvino_model,
    silence,
)
from kerastl.serving.formats import Format

OPSET = 17
"""The version of ONNX's operations: the first that holds LayerNormalization, which ConvNeXt has."""


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
    if format_.name == "onnx":
        _write_onnx(classifier, file, class_names)
    elif format_.name == "openvino":
        _write_openvino(classifier, file, class_names)
    else:
        _write_litert(format_.name, classifier, file, class_names, representative)


def _write_litert(
    kind: str,
    classifier: keras.Model,
    file: Path,
    class_names: Sequence[str],
    representative: np.ndarray,
) -> None:
    """Convert to LiteRT, a batch of one, and append the labels as its tools do: as a zip file."""
    module = tf.Module()
    module.run = _named(classifier, 1)
    with silence(), held_stderr(), _inlined():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [module.run.get_concrete_function()], module
        )
        if kind != "litert":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "litert_fp16":
            converter.target_spec.supported_types = [tf.float16]
        if kind == "litert_int8":  # all the way: uint8 pixels in, uint8 probabilities * 256 out
            converter.representative_dataset = lambda: (
                [image[np.newaxis].astype("float32")] for image in representative
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        content = converter.convert()
    labels = io.BytesIO()
    with zipfile.ZipFile(labels, "w") as archive:
        archive.writestr("labels.txt", "".join(f"{name}\n" for name in class_names))
    file.write_bytes(content + labels.getvalue())


def _write_onnx(classifier: keras.Model, file: Path, class_names: Sequence[str]) -> None:
    with silence("tf2onnx"), _inlined():
        function = _closed(_named(classifier, None))
        tf2onnx = importlib.import_module("tf2onnx")
        proto, _ = tf2onnx.convert.from_function(
            function,
            input_signature=function.input_signature,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_one_minus_erf, [])},
        )
    entry = proto.metadata_props.add()
    entry.key, entry.value = "labels", json.dumps(list(class_names), ensure_ascii=False)
    file.write_bytes(proto.SerializeToString())


def _one_minus_erf(graph: Any, node: Any, name: str, args: Any) -> None:
    """Write Erfc, which TensorFlow's GELU takes, in what ONNX has."""
    del name, args
    one = graph.make_const(f"{node.name}/one", np.ones((), np.float32))
    erf = graph.make_node("Erf", [node.input[0]])
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    graph.remove_node(node.name)
    inputs = [one.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, outputs=outputs, shapes=shapes, dtypes=dtypes)


def _write_openvino(classifier: keras.Model, file: Path, class_names: Sequence[str]) -> None:
    with _inlined():
        concrete = _named(classifier, None).get_concrete_function()
    model = openvino_model(concrete, file.with_suffix(".pb"))
    model.inputs[0].set_names({"image"})
    model.outputs[0].set_names({"probabilities"})
    # Separated by spaces, as OpenVINO's Model API reads them.
    labels = " ".join(name.replace(" ", "_") for name in class_names)
    model.set_rt_info(labels, ["model_info", "labels"])
    import_openvino().save_model(model, str(file), compress_to_fp16=False)
    file.with_suffix(".pb").unlink()


def _named(classifier: keras.Model, batch_size: int | None) -> Any:
    """Return a graph function without variables, from `image` to `probabilities`."""
    constants = graph_of_constants(classifier, batch_size)
    shape = (batch_size, *classifier.inputs[0].shape[1:])

    def run(image: Any) -> dict[str, tf.Tensor]:
        return {"probabilities": constants(image)[0]}

    return tf.function(run, input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])


def _closed(function: Any) -> Any:
    """Return a graph function with inside it the constants that another one captures.

    The statistics of `Normalization` are such; tf2onnx would take them for inputs.
    """
    concrete = function.get_concrete_function()
    graph, output = concrete.graph.as_graph_def(), concrete.outputs[0].name

    def run(image: Any) -> dict[str, tf.Tensor]:
        (imported,) = tf.graph_util.import_graph_def(graph, {"image": image}, [output], name="")
        return {"probabilities": imported}

    return tf.function(run, input_signature=function.input_signature)


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions into those that call them.

    Keras puts a convolution in groups, as ConvNeXt has, into a function for XLA, which no converter
    looks into.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
