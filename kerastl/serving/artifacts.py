"""Loads and runs an exported model without Keras."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerastl._reading import read_text
from kerastl._streams import held_stderr
from kerastl._task import DEFAULT_TASK, all_tasks, find_task
from kerastl.frozen.runners import compile_openvino, silence
from kerastl.serving.formats import BY_NAME

Classifier = Callable[[np.ndarray], np.ndarray]
"""Pixels 0-255 `(n, height, width, 3)` to float32 probabilities `(n, num_classes)`."""

BATCH_SIZE = 32
ANSWERS = "answers.json"
"""How outputs become answers, as the task writes it; not of each model."""


def open_artifact(path: str | Path, name: str) -> Classifier:
    """Load an artifact of a version, by the name of its format, to run on pixels."""
    openers = {"saved_model": _open_saved, "onnx": _open_onnx, "openvino": _open_openvino}
    run = openers.get(name, _open_litert)(Path(path) / BY_NAME[name].file)
    batch_size = BATCH_SIZE if name in openers else 1

    def run_all(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), batch_size)
        return np.concatenate([run(images[start : start + batch_size]) for start in starts])

    return run_all


class SavedModel:
    """The signatures of a version, from its folder."""

    def __init__(self, path: str | Path):
        self._loaded = tf.saved_model.load(str(path))
        self.signatures = self._loaded.signatures
        image = self.signatures["serving_default"].structured_input_signature[1]["image"]
        self.image_dtype: str = image.dtype.name
        self.size: tuple[int, int] = tuple(image.shape[1:3])
        outputs = set(self.signatures["serving_default"].structured_outputs)
        known = [task for task in all_tasks() if task.served_names <= outputs]
        self.task = known[0] if known else find_task(DEFAULT_TASK)
        if (settings := Path(path) / ANSWERS).is_file():
            self.task = self.task.with_settings(read_text(settings))
        self.answer = self.task.served_output

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities of pixels; of a regression its values."""
        images = images.astype(self.image_dtype)
        return np.asarray(self.run("serving_default", image=images)[self.answer])

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of pixels."""
        return np.asarray(self.run("embed", image=images.astype(self.image_dtype))["embedding"])

    def classify_files(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Return what `serving_bytes` answers to encoded images."""
        return self.run("serving_bytes", image_bytes=np.array(list(files), object))

    def run(self, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run a signature on arrays."""
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        return {
            name: value.numpy() for name, value in self.signatures[signature](**tensors).items()
        }


def _open_saved(file: Path) -> Classifier:
    return SavedModel(file.parent).classify


def _open_litert(file: Path) -> Classifier:
    with silence(), held_stderr():
        interpreter = tf.lite.Interpreter(str(file))
        interpreter.allocate_tensors()
    given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    scale, zero = given["quantization"]
    limits = np.iinfo(given["dtype"]) if scale else None
    out_scale, out_zero = wanted["quantization"]

    def run(images: np.ndarray) -> np.ndarray:
        if limits is not None:
            integers = np.rint(images.astype("float32") / scale + zero)
            images = np.clip(integers, limits.min, limits.max)
        interpreter.set_tensor(given["index"], images.astype(given["dtype"]))
        interpreter.invoke()
        values = interpreter.get_tensor(wanted["index"])
        if not out_scale:
            return values
        return (values.astype("float32") - out_zero) * np.float32(out_scale)

    return run


def _open_onnx(file: Path) -> Classifier:
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {name: images.astype("float32")})[0])

    return run


def _open_openvino(file: Path) -> Classifier:
    compiled = compile_openvino(str(file))

    def run(images: np.ndarray) -> np.ndarray:
        return np.array(compiled([images.astype("float32")])[0])

    return run
