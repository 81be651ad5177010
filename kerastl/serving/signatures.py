"""The signatures of a SavedModel: pixels or encoded images in, names or embeddings out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerastl._task import Task
from kerastl.serving.network import traced
from kerastl.serving.rows import decode_batch


@dataclass(frozen=True)
class Limits:
    """The largest image that a SavedModel decodes.

    Args:
        max_bytes: of the encoded file.
        max_pixels: height times width, by its header; decoding takes 3 bytes each, or more.
    """

    max_bytes: int
    max_pixels: int


def write_saved_model(
    network: keras.Model,
    class_names: list[str],
    path: Path,
    *,
    size: tuple[int, int],
    image_dtype: str,
    limits: Limits,
    task: Task,
) -> None:
    """Write a network of `served_network` as a SavedModel with four signatures.

    Args:
        network: pixels to `[embedding, probabilities]`.
        class_names: one name a class.
        path: the folder, which is made.
        size: height and width that the network takes.
        image_dtype: `"float32"` or `"uint8"`, of the pixels that signatures take.
        limits: of the images that are decoded.
        task: of the model.
    """
    run, decode = traced(network, size), traced_decoder(size, limits)

    def classify(image: Any) -> dict[str, Any]:
        return task.serve(run(tf.cast(image, tf.float32))[1], class_names)

    def classify_bytes(image_bytes: Any) -> dict[str, Any]:
        images, valid = decode(image_bytes)
        outputs = task.serve(run(images)[1], class_names)
        return {**blank_invalid(outputs, valid), "valid": valid}

    def embed(image: Any) -> dict[str, Any]:
        return {"embedding": run(tf.cast(image, tf.float32))[0]}

    def embed_bytes(image_bytes: Any) -> dict[str, Any]:
        images, valid = decode(image_bytes)
        return {**blank_invalid({"embedding": run(images)[0]}, valid), "valid": valid}

    image = tf.TensorSpec((None, *size, 3), image_dtype, name="image")
    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serving_default", classify, [image])
    archive.add_endpoint("serving_bytes", classify_bytes, [image_bytes])
    archive.add_endpoint("embed", embed, [image])
    archive.add_endpoint("embed_bytes", embed_bytes, [image_bytes])
    archive.write_out(str(path), verbose=False)


def traced_decoder(size: tuple[int, int], limits: Limits) -> Any:
    """Return one graph function of encoded images, for all signatures of bytes.

    String `(batch,)` to float32 `(batch, *size, 3)` and bool `(batch,)`.
    """

    def decode(image_bytes: Any) -> tuple[Any, Any]:
        pixels, valid = decode_batch(
            image_bytes, size, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels
        )
        return tf.cast(pixels, tf.float32), valid

    return tf.function(decode, input_signature=[tf.TensorSpec((None,), tf.string)])


def names_of_rows(outputs: Any, class_names: list[str]) -> Any:
    """Return the names, strings `(batch, num_names)`: servers want as many rows of each output."""
    return tf.tile(tf.constant([class_names]), [tf.shape(outputs)[0], 1])


def blank_invalid(outputs: dict[str, Any], valid: Any) -> dict[str, Any]:
    """Put 0, class -1 and an empty label in the rows that hold no image.

    Not NaN: JSON has no word for it, and servers that write one break their clients.
    """

    def blank(name: str, value: Any) -> Any:
        instead: Any = "" if value.dtype == tf.string else -1 if name.endswith("class_id") else 0
        instead = False if value.dtype == tf.bool else instead
        keep = tf.reshape(valid, [-1] + [1] * (len(value.shape) - 1))
        return tf.where(keep, value, tf.constant(instead, value.dtype))

    return {name: blank(name, value) for name, value in outputs.items()}
