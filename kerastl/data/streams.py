"""Writes a `tf.data.Dataset` of images to disk once, so that its order is fixed."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerastl._task import Task
from kerastl.data import decode
from kerastl.data.arrays import check_range
from kerastl.data.classes import by_value
from kerastl.data.loaded import SourceParts, join_names
from kerastl.data.options import AS_ALWAYS, NO_OPTIONS, DataOptions, PixelRules
from kerastl.data.parts import part_of
from kerastl.data.pixels import SpoolSource, as_pixels
from kerastl.data.split import Split
from kerastl.errors import DataError

_WAY_OUT = "Remove `repeat()`, or use a part of the dataset with `dataset.take(number)`."
_TELL_EVERY = 10_000  # images of a data set of unknown length


def read_datasets(
    datasets: dict[str, Any],
    class_names: Sequence[str] | None,
    task: Task,
    options: DataOptions = NO_OPTIONS,
    own_names: Sequence[str] | None = None,
) -> SourceParts:
    """Make splits of data sets of `(image, label)`, batched or not, of any sizes.

    Args:
        datasets: of each part.
        class_names: the names in the order asked for.
        task: of the labels.
        options: how to read the pixels.
        own_names: what the labels mean. Default: `class_names` of the data set itself.
    """
    rules = options.rules
    spooled = {part: spool(dataset, part, rules) for part, dataset in datasets.items()}
    found = {part: labels for part, (_, labels) in spooled.items()}
    own_names = own_names or getattr(datasets["train"], "class_names", None)
    labels, names = task.array_labels(found, class_names, own_names)
    parts = {
        part: Split(source, labels[part], len(names), task) for part, (source, _) in spooled.items()
    }
    warnings = []
    if own_names is None and class_names is not None and sorted(names) != names:
        warnings += _doubt_of_values(names, found)
    return SourceParts(parts, names, warnings=warnings)


def _doubt_of_values(names: Sequence[str], labels: dict[str, np.ndarray]) -> list[str]:
    """Warn where integers of a nameless data set may be places among folders sorted as text."""
    if not by_value(names) or any(values.dtype.kind not in "ui" for values in labels.values()):
        return []
    return [
        "a tf.data.Dataset has integer labels and no `class_names`, so kerastl uses the "
        "integers as class names; Keras numbers folders in the order of their text "
        f"({join_names(sorted(names), 3)}): load the dataset before you map it"
    ]


def is_builder(source: Any) -> bool:
    """Whether a source is a builder of tensorflow-datasets."""
    return hasattr(source, "as_dataset") and hasattr(source, "info")


def read_tfds(
    source: Any, class_names: Sequence[str] | None, task: Task, options: DataOptions
) -> SourceParts:
    """Read a data set of tensorflow-datasets, downloading it when it is not there yet.

    It is a builder, or the name of one. The images are decoded by kerastl, so that they look as
    they will when the model is served.
    """
    import tensorflow_datasets as tfds

    name = source if isinstance(source, str) else source.info.full_name
    try:
        with contextlib.redirect_stdout(sys.stderr):  # which commands keep for their answer
            is_name = isinstance(source, str)
            builder = tfds.builder(name, data_dir=options.data_dir) if is_name else source
            builder.download_and_prepare()
    except Exception as error:  # whatever a registry, a network or a disk can raise
        raise DataError(
            f"tensorflow-datasets cannot load {name!r}: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else ''} Check the "
            "name and the network, or pass the `data_dir` with the prepared dataset."
        ) from error
    image, label = _supervised_keys(builder, name)
    named = {split: part_of(split) for split in builder.info.splits}
    parts = {part: split for split, part in reversed(named.items()) if part is not None}
    if "train" not in parts:
        raise DataError(
            f"{name!r} must have a split named 'train'. Received: "
            f"{join_names(list(builder.info.splits))}. Pass `tfds.load(...)` with the split "
            "you want."
        )
    skip = {image: tfds.decode.SkipDecoding()}
    datasets = {
        part: builder.as_dataset(split=split, decoders=skip, shuffle_files=False).map(
            lambda example: (
                decode.decode_image(example[image], bit_depth=options.bit_depth),
                example[label],
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        for part, split in parts.items()
    }
    own_names = getattr(builder.info.features[label], "names", None)
    return read_datasets(datasets, class_names, task, options, own_names)


def spool(dataset: Any, part: str, rules: PixelRules = AS_ALWAYS) -> tuple[SpoolSource, np.ndarray]:
    """Write the pixels of a data set to a temporary file, one image after another.

    Returns:
        The source of the pixels, whose file vanishes with it, and the labels as they came.

    Raises:
        DataError: the data set is endless, or larger than half of the free disk.
    """
    refuse_endless(dataset, part)
    labels, shapes, lows, highs, is_float = [], [], [], [], False
    limit = shutil.disk_usage(tempfile.gettempdir()).free // 2
    with tempfile.TemporaryFile() as file:
        for image, label in _examples(dataset, part, rules):
            lows.append(float(image.min()))
            highs.append(float(image.max()))
            is_float |= image.dtype.kind == "f"
            if lows[-1] < 0 or not highs[-1] <= 255:
                check_range(lows[-1], highs[-1], is_float, part, rules.bit_depth)
            file.write(as_pixels(image, rules).tobytes())
            shapes.append(image.shape[:2])
            labels.append(label)
            if file.tell() > limit:
                raise DataError(
                    f"The {part} dataset does not fit on the disk: after {len(labels):,} "
                    f"images {file.tell():,} bytes of pixels, half of what was free in "
                    f"{tempfile.gettempdir()}, are written, and there are more. {_WAY_OUT}"
                )
            if len(labels) % _TELL_EVERY == 0 and cardinality(dataset) < 0:
                sys.stderr.write(f"{len(labels):,} {part} images of a tf.data.Dataset so far\n")
        if not labels:
            raise DataError(f"A dataset must contain images. Received: an empty {part} dataset.")
        check_range(min(lows), max(highs), is_float, part, rules.bit_depth)
        file.flush()
        pixels = np.memmap(file, np.uint8, mode="r")
    sizes = np.array(shapes, np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1) * rules.channels)[:-1]])
    return SpoolSource(pixels, starts, sizes, rules), np.stack(labels)


def refuse_endless(dataset: Any, part: str = "the data") -> None:
    """Raise a `DataError` when a data set says that it has no end."""
    if cardinality(dataset) == tf.data.INFINITE_CARDINALITY:
        raise DataError(f"A dataset must end. Received: an infinite dataset in {part}. {_WAY_OUT}")


def cardinality(dataset: Any) -> int:
    """Return how many elements a `tf.data.Dataset` has, or a negative number."""
    return int(dataset.cardinality())


def _examples(
    dataset: Any, part: str, rules: PixelRules
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each image `(height, width, channels)` with its label, from batches or not."""
    for element in dataset:
        if not isinstance(element, tuple) or len(element) != 2:
            raise DataError(
                "A dataset must return pairs (image, label). Received: "
                f"{type(element).__name__} in {part}. Map it to pairs."
            )
        images, labels = element
        if _is_one_image(images, labels, rules):
            images, labels = [images], [labels]
        for image, label in zip(images, labels, strict=True):
            yield _pixels(image, part, rules), np.asarray(label)


def _is_one_image(image: Any, label: Any, rules: PixelRules) -> bool:
    if image.shape.rank == 3:
        return rules.fits(image.shape[-1]) or label.shape.rank == 0
    return image.shape.rank == 2


def _pixels(image: Any, part: str, rules: PixelRules) -> np.ndarray:
    if isinstance(image, tf.RaggedTensor):
        image = image.to_tensor()
    pixels = np.asarray(image)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not rules.fits(pixels.shape[-1]) or 0 in pixels.shape:
        raise DataError(
            "Images must have the shape (height, width) or (height, width, "
            f"{rules.channels_in_words}). Received: {pixels.shape} in {part}. Put the "
            "channels last and remove alpha, or pass `channels` if the channels are not "
            "RGB."
        )
    if pixels.dtype.kind not in "uif":
        raise DataError(
            f"Images must be numbers. Received: dtype {pixels.dtype} in {part}. Decode them first."
        )
    return pixels


def _supervised_keys(builder: Any, name: str) -> tuple[str, str]:
    keys = builder.info.supervised_keys or ("image", "label")
    if not {*keys[:2]} <= {*builder.info.features}:
        raise DataError(
            f"{name!r} must have an image and a label. Received the features: "
            f"{join_names(list(builder.info.features))}. Choose a dataset for "
            "classification."
        )
    return keys[0], keys[1]
