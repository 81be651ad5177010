"""A model as a SavedModel that takes pixels or encoded images and answers with names."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerastl._checks import check_int
from kerastl.data.decode import decode_and_resize
from kerastl.errors import ArgumentError, ExportError
from kerastl.frozen.activations import image_size_of


def export_model(
    model: keras.Model,
    directory: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    version: int | None = None,
) -> Path:
    """Write a model as a SavedModel under `directory/<version>/`, ready for TensorFlow Serving.

    Two signatures, both in inference mode, answer with `probabilities` (float32
    `[batch, num_classes]`), `class_id` (int64 `[batch]`) and `label` (string `[batch]`):
    `serving_default(image)` takes raw RGB pixels 0-255, float32 `[batch, height, width, 3]` of
    the model's size; `serving_bytes(image_bytes)` takes encoded JPEG, PNG, BMP or GIF files, string
    `[batch]`, and decodes and resizes them by the function that training used. The version is
    written beside and renamed into place, so that a reader never sees half of it.

    Args:
        model: a model of `build_transfer_model`.
        directory: the folder that holds the versions; made when missing.
        class_names: one name a class. Default: `model.class_names`.
        version: int from 1 that is not there yet. Default: the next free number.

    Returns:
        The path of the version.

    Raises:
        ArgumentError: the names do not fit the model, or the version is there already.
        ExportError: it could not be written.

    Example:
        >>> kerastl.export_model(model, "serving/flowers", class_names=data.class_names)
        PosixPath('serving/flowers/1')
    """
    names = _checked_names(model, class_names)
    directory = Path(directory)
    target = _version_path(directory, version)
    directory.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
    try:
        partial.chmod(0o755)
        _write_saved_model(model, names, partial / "model")
        (partial / "model" / "labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        os.rename(partial / "model", target)
    except OSError as error:
        raise ExportError(
            f"The SavedModel could not be written to {target}: {error}. Earlier versions are whole."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _checked_names(model: keras.Model, class_names: Sequence[str] | None) -> list[str]:
    names = class_names if class_names is not None else getattr(model, "class_names", None)
    num_classes = model.output_shape[-1]
    if names is None:
        raise ArgumentError(
            f"`class_names` must name the {num_classes} classes: they travel in the artifact. "
            "Received none, and the model has none. Pass `class_names=data.class_names`."
        )
    if len(names) != num_classes:
        raise ArgumentError(
            f"`class_names` must name {num_classes} classes. Received {len(names)}: {list(names)!r}"
        )
    return [str(name) for name in names]


def _version_path(directory: Path, version: int | None) -> Path:
    if version is None:
        taken = [int(p.name) for p in directory.glob("*") if p.name.isdecimal()]
        version = max(taken, default=0) + 1
    check_int("version", version, 1)
    target = directory / str(version)
    if target.exists():
        raise ArgumentError(
            f"Version {version} is in {directory} already. Leave `version` out for the next one."
        )
    return target


def _write_saved_model(model: keras.Model, names: list[str], path: Path) -> None:
    size = image_size_of(model)

    def answer(images: Any) -> dict[str, Any]:
        probabilities = model(images, training=False)
        class_id = tf.argmax(probabilities, axis=-1)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "label": tf.gather(tf.constant(names), class_id),
        }

    def answer_bytes(image_bytes: Any) -> dict[str, Any]:
        pixels = tf.map_fn(
            lambda data: decode_and_resize(data, size),
            image_bytes,
            fn_output_signature=tf.TensorSpec((*size, 3), tf.uint8),
        )
        return answer(tf.cast(pixels, tf.float32))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name="serving_default",
        fn=answer,
        input_signature=[tf.TensorSpec((None, *size, 3), tf.float32, name="image")],
    )
    archive.add_endpoint(
        name="serving_bytes",
        fn=answer_bytes,
        input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")],
    )
    archive.write_out(str(path), verbose=False)
