"""The signatures of a SavedModel, for pixels and for encoded images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerastl._task import Task
from kerastl.data.options import RGB
from kerastl.frozen.prefixes import image_size_of
from kerastl.serving.network import traced
from kerastl.serving.rows import Limits, decode_batch


def write_saved_model(
    network: keras.Model,
    class_names: list[str],
    path: Path,
    *,
    image_dtype: str,
    limits: Limits,
    task: Task,
) -> None:
    """Write a network of `served_network` as a SavedModel with four signatures.

    Where images have other channels than RGB, they are the two of pixels.

    Args:
        network: pixels to `[embedding, probabilities]`.
        class_names: one name a class.
        path: the folder, which is made.
        image_dtype: `"float32"` or `"uint8"`, of the pixels that signatures take.
        limits: of the images that are decoded.
        task: of the model.
    """
    size = image_size_of(network)
    run = traced(network, size)
    # One graph function for both signatures of bytes.
    decode = tf.function(
        lambda image_bytes: decode_batch(image_bytes, size, limits),
        input_signature=[tf.TensorSpec((None,), tf.string)],
        autograph=False,
    )

    def classify(image: Any) -> dict[str, tf.Tensor]:
        sizes = tf.tile(tf.constant([size]), [tf.shape(image)[0], 1])
        outputs = task.serve(run(tf.cast(image, tf.float32))[1], class_names)
        return task.in_served_pixels(outputs, sizes)

    def classify_bytes(image_bytes: Any) -> dict[str, tf.Tensor]:
        images, valid, sizes = decode(image_bytes)
        outputs = task.serve(run(tf.cast(images, tf.float32))[1], class_names)
        outputs = task.in_served_pixels(outputs, sizes)
        return {**blank_invalid(outputs, valid), "valid": valid}

    def embed(image: Any) -> dict[str, tf.Tensor]:
        return {"embedding": run(tf.cast(image, tf.float32))[0]}

    def embed_bytes(image_bytes: Any) -> dict[str, tf.Tensor]:
        images, valid, _ = decode(image_bytes)
        return {
            **blank_invalid({"embedding": run(tf.cast(images, tf.float32))[0]}, valid),
            "valid": valid,
        }

    channels = network.inputs[0].shape[-1]
    image = tf.TensorSpec((None, *size, channels), image_dtype, name="image")
    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    functions = {
        "serving_default": (classify, [image]),
        "serving_bytes": (classify_bytes, [image_bytes]),
        "embed": (embed, [image]),
        "embed_bytes": (embed_bytes, [image_bytes]),
    }
    if channels != RGB:  # which no encoded image holds
        functions = {name: functions[name] for name in ("serving_default", "embed")}
    save_signatures(network, functions, path)


def save_signatures(
    network: keras.Model,
    functions: Mapping[str, tuple[Callable[..., Any], list[tf.TensorSpec]]],
    path: Path,
) -> None:
    """Write functions of a network as the signatures of a SavedModel.

    `keras.export.ExportArchive` writes the same, but traces each function three times and keeps
    every weight twice.

    Args:
        network: whose variables they read.
        functions: each with the inputs that it takes, by the name of its signature.
        path: the folder, which is made.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    signatures = {
        name: tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()
        for name, (function, inputs) in functions.items()
    }
    tf.saved_model.save(module, str(path), signatures=signatures)


def names_of_rows(outputs: Any, class_names: list[str]) -> Any:
    """Return the names, strings `(batch, num_names)`: servers want as many rows of each output."""
    return tf.tile(tf.constant([class_names]), [tf.shape(outputs)[0], 1])


def blank_invalid(outputs: dict[str, tf.Tensor], valid: Any) -> dict[str, tf.Tensor]:
    """Put 0, class -1 and an empty label in the rows that hold no image.

    Not NaN: JSON has no word for it, and servers that write one break their clients.
    """

    def blank(name: str, value: Any) -> Any:
        instead: Any = "" if value.dtype == tf.string else -1 if name.endswith("class_id") else 0
        instead = False if value.dtype == tf.bool else instead
        keep = tf.reshape(valid, [-1] + [1] * (len(value.shape) - 1))
        return tf.where(keep, value, tf.constant(instead, value.dtype))

    return {name: blank(name, value) for name, value in outputs.items()}
