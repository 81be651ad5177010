"""Exports a classifier for images of any larger size as a SavedModel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._checks import check_int
from kerastl.data.decode import resize
from kerastl.data.scan import MAX_PIXELS
from kerastl.model.heads import task_of
from kerastl.results.class_map import TIMES_LARGER, ClassMapper
from kerastl.serving.export import LABELS, MAX_BYTES, checked_names, rules_for
from kerastl.serving.network import check_temperature
from kerastl.serving.parity import apply_temperature, certify, proved_in
from kerastl.serving.rows import Limits, decode_within
from kerastl.serving.sample import take_sample
from kerastl.serving.signatures import save_signatures
from kerastl.serving.versions import version_path, written_beside

MAX_IMAGES = 8
_CELLS_MORE = 3


def export_fully_convolutional(
    model: keras.Model,
    directory: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    version: int | None = None,
    parity_data: Any = None,
    temperature: float = 1.0,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    bit_depth: int | None = None,
    proof: str = "here",
) -> Path:
    """Write `to_fully_convolutional(model)` to `directory/<version>/`, and check it.

    The SavedModel has two signatures. `serving_default(image)` takes raw RGB pixels 0-255, float32
    `[batch, height, width, 3]` of any size that is at least the input size of the model.
    `serving_bytes(image_bytes,
    shorter)` takes one encoded image, string `[]`, decoded as in training, and resized so that the
    shorter side has about `shorter` pixels, int64 `[]`, and windows fill the image (`ClassMapper`).
    A damaged or too large image, or a `shorter` below the input size, raises an error.

    Both return `probabilities` (float32 `[batch, rows, columns, num_classes]`), where cell (i, j)
    is the window whose corner is at (i, j) times the stride; `window` and `stride` (int64 `[2]`,
    down and right, in pixels of the resized image), `looked_at` (int64 `[2]`, height and width of
    the resized image) and `class_names` (string `[num_classes]`).

    Args:
        model: as for `to_fully_convolutional`.
        directory: the folder of the versions; created if it does not exist.
        class_names: one name per class. Default: `model.class_names`.
        version: a new version number, from 1. Default: the next free number.
        parity_data: images for the comparison, as for `export_model`, of which up to eight are
            used. Default: eight generated images.
        temperature: temperature of a calibration, above 0. The scores are divided by it. Default 1.
        max_bytes: maximum size of an encoded image. Default 16 MiB.
        max_pixels: maximum height times width of an encoded image, and of the resized image.
            Default 89 million.
        bit_depth: for encoded images with more than 8 bits, as for `load_data`. Default: the value
            of the training images of `fine_tune`, or of `parity_data`.
        proof: where the export is run, `"here"` or `"process"`, as for `export_model`.

    Returns:
        The path of the version. Its `parity.json` contains the differences from the model at the
        input size, and from `to_fully_convolutional(model)` at a larger size.

    Raises:
        ArgumentError: an argument is invalid, or the model has no feature map.
        ExportError: the version cannot be written, or does not predict the same as the model.

    Example:
        >>> kerastl.export_fully_convolutional(model, "serving/flowers_map")
        PosixPath('serving/flowers_map/1')
    """
    names = checked_names(model, class_names)
    rules = rules_for(model, parity_data, bit_depth)
    limits = Limits(
        check_int("max_bytes", max_bytes, 1), check_int("max_pixels", max_pixels, 1), rules
    )
    task = task_of(model)
    check_temperature(task, temperature)
    mapper = ClassMapper(model)
    target = version_path(Path(directory), version)
    height, width = (
        side + _CELLS_MORE * step for side, step in zip(mapper.window, mapper.stride, strict=True)
    )
    images, more = (
        take_sample(parity_data, size, rules).images[:MAX_IMAGES]
        for size in (mapper.window, (height, width))
    )
    with written_beside(target) as partial, proved_in(proof) as prove:
        _write(mapper, names, partial, temperature, limits)
        (partial / LABELS).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        shorter = TIMES_LARGER * min(mapper.window)
        maps = {
            "serving_default": np.asarray(model(images, training=False))[:, None, None],
            "serving_default, larger": np.asarray(mapper.network(more, training=False)),
            "serving_bytes": mapper(more[0], shorter).probabilities[None],
        }
        certify(
            task,
            partial,
            prove,
            (),
            given={
                "images": images,
                "larger": more,
                "content": np.frombuffer(tf.io.encode_png(more[0]).numpy(), np.uint8),
                "shorter": np.array(shorter, np.int64),
            },
            expected={name: apply_temperature(each, temperature) for name, each in maps.items()},
            labels=None,
            facts={
                "sample": {
                    "images": len(images) + len(more),
                    "sizes": [list(pixels.shape[1:3]) for pixels in (images, more)],
                    "source": "generated" if parity_data is None else "given",
                    "labelled": False,
                },
                "temperature": temperature,
            },
        )
    return target


def _write(
    mapper: ClassMapper, names: list[str], path: Path, temperature: float, limits: Limits
) -> None:
    window, stride = (np.array(pair, "int64") for pair in (mapper.window, mapper.stride))

    def slide(image: Any) -> dict[str, tf.Tensor]:
        shape = tf.shape(image, tf.int64)[1:3]
        large = tf.debugging.Assert(
            tf.reduce_all(shape >= window), ["the minimum height and width are", window]
        )
        with tf.control_dependencies([large]):
            found = tf.cast(mapper.network(tf.identity(image), training=False), tf.float32)
        if temperature != 1.0:
            found = tf.nn.softmax(tf.math.log(tf.maximum(found, 1e-38)) / temperature)
        return {
            "probabilities": found,
            "window": tf.constant(window),
            "stride": tf.constant(stride),
            "looked_at": shape,
            "class_names": tf.constant(names),
        }

    def slide_bytes(image_bytes: Any, shorter: Any) -> dict[str, tf.Tensor]:
        pixels = decode_within(image_bytes, limits)
        size = _size_for(tf.shape(pixels)[:2], shorter, window, stride, limits)
        return slide(tf.cast(resize(pixels, size), tf.float32)[tf.newaxis])

    save_signatures(
        mapper.network,
        {
            "serving_default": (
                slide,
                [tf.TensorSpec((None, None, None, 3), tf.float32, name="image")],
            ),
            "serving_bytes": (
                slide_bytes,
                [
                    tf.TensorSpec((), tf.string, name="image_bytes"),
                    tf.TensorSpec((), tf.int64, name="shorter"),
                ],
            ),
        },
        path,
    )


def _size_for(own: Any, shorter: Any, window: Any, stride: Any, limits: Limits) -> Any:
    """Return what `ClassMapper.size_for` does, in graph operations."""
    own, shorter = tf.cast(own, tf.float64), tf.cast(shorter, tf.float64)
    enough = tf.debugging.Assert(shorter >= min(window), ["the minimum `shorter` is", min(window)])
    with tf.control_dependencies([enough]):
        wanted = own * shorter / tf.reduce_min(own)
    more = tf.maximum(tf.round((wanted - window) / stride), 0.0)
    fits = tf.debugging.Assert(
        tf.reduce_prod(window + stride * more) <= limits.max_pixels, ["`shorter` is too large"]
    )
    with tf.control_dependencies([fits]):
        return tf.cast(window + stride * more, tf.int32)
