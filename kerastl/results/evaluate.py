"""Measures a model on labelled images."""

import os
import reprlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._checks import check_tensorflow
from kerastl._measure import headlines
from kerastl._task import Task
from kerastl.data.split import Split
from kerastl.distribute import on_one_device
from kerastl.errors import ArgumentError, DataError
from kerastl.frozen.activations import extract_embeddings
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runtime import FrozenRuntime
from kerastl.model.heads import task_of
from kerastl.model.kept_rules import check_rules
from kerastl.model.kept_words import class_names_of
from kerastl.results.measures import Measured
from kerastl.results.predictions import BasePredictions


class Evaluation(dict[str, Any]):
    """What `evaluate` returns: a dict, which is shown as a table."""

    def __init__(self, measured: Measured, task: Task):
        super().__init__(measured)
        self._task = task

    def _repr_html_(self) -> str:
        rows = headlines(self, self._task.measures, percent=False)
        body = (f"<tr><th>{r.title}</th><td>{r.value}</td><td>{r.interval}</td></tr>" for r in rows)
        count = f"<caption>{self['num_images']:,} images, intervals of 95 %</caption>"
        return f"<table>{count}{''.join(body)}</table>"

    def __repr__(self) -> str:
        rows = headlines(self, self._task.measures, percent=False)
        width = max(len(row.title) for row in rows)
        lines = [f"{row.title:{width}}  {row.value:>6}  {row.interval}".rstrip() for row in rows]
        return "\n".join([*lines, f"{self['num_images']:,} images, intervals of 95 %"])


def evaluate(model: keras.Model, data: Any, *, batch_size: int = 32) -> Evaluation:
    """Measure a model on a split, arrays or a dataset that it was not trained on.

    All intervals are 95 % intervals: Wilson intervals for fractions, otherwise bias-corrected
    bootstrap intervals from a thousand samples of the images.

    Args:
        model: a model of `build_transfer_model`.
        data: `data.test`, a pair `(images, labels)`, or a batched `tf.data.Dataset` of raw pixels
            and labels, integers or one-hot. Images must have the input size of the model, except in
            a split.
        batch_size: images per step.

    Returns:
        A dict, printed as a table, with `accuracy` and its `accuracy_interval`; `top_k_accuracy`,
        for the `top_k` most probable classes; `macro_precision`, `macro_recall` and `macro_f1`,
        means over the classes that occur;
        `log_loss` in nats; `brier`, the squared distance between probabilities and labels, 0 to 2;
        `ece`, the expected calibration error over 15 equal bins
        (https://arxiv.org/abs/1706.04599); `num_images`; `intervals`, `[low, high]` of each; and
        `classes`, one dict per class with `num_images`, `num_answered`, `precision`, `recall`, `f1`
        and
        their intervals, None if they cannot be measured.

        For several labels per image: `mean_average_precision`, over the labels that occur;
        `macro_f1` and `micro_f1` of the labels above their thresholds; `subset_accuracy`, the
        fraction of images with only correct labels; `hamming_loss`, the fraction of wrong labels;
        `log_loss`; and `labels`, one dict per label with precision, recall, F1 and average
        precision.
        For regression: `mean_absolute_error`, `root_mean_squared_error`, `r2`,
        `median_absolute_error`, the means over the targets, and `targets`, the same for each
        target. All have `intervals` and `num_images`. Values that cannot be measured are None.

    Raises:
        DataError: there are no images.
        ArgumentError: the labels do not match the task of the model.

    Example:
        >>> kerastl.evaluate(model, data.test)["accuracy"]
        0.915
    """
    found = collect_predictions(model, data, batch_size=batch_size).measures()
    return Evaluation(found, task_of(model))


def collect_predictions(
    model: keras.Model, data: Any, *, class_names: Sequence[str] | None = None, batch_size: int = 32
) -> BasePredictions:
    """Return the predictions of a model for labelled images.

    Args:
        model: a model of `build_transfer_model`.
        data: as for `evaluate`.
        class_names: one name per class. Default: the names in the model, or numbers from 0.
        batch_size: images per step.

    Returns:
        `Predictions`, with the methods `measures()`, `confusion()`, `most_confused()`,
        `top_losses()`, `reliability()` and `to_csv()`. For other tasks, `LabelPredictions` or
        `ValuePredictions` with `measures()`, `top_losses()` and `to_csv()`.

    Raises:
        DataError: there are no images.
        ArgumentError: `data` has an unknown type, or `class_names` has a wrong length.

    Example:
        >>> answers = kerastl.collect_predictions(model, data.test)
        >>> answers.top_losses(1)[0]["path"]
        'flowers/test/rose/17.jpg'
    """
    labels, probabilities = labels_and_probabilities(model, data, batch_size)
    return _as_predictions(model, labels, probabilities, data, class_names)


def predictions_of_head(
    model: keras.Model, split: Split, runtime: FrozenRuntime | None = None
) -> BasePredictions:
    """Return what `collect_predictions` does, from the embeddings that the store has or gets.

    For a model of which only the head has been trained: its backbone is run by the engine that
    runs it for training, and for each set of images once.
    """
    x, labels = extract_embeddings(model, split, runtime=runtime)
    outputs = np.asarray(model.get_layer("head")(x, training=False), "float32")
    return _as_predictions(model, labels, outputs, split, None)


def _as_predictions(
    model: keras.Model,
    labels: np.ndarray,
    probabilities: np.ndarray,
    data: Any,
    class_names: Sequence[str] | None,
) -> BasePredictions:
    if len(labels) == 0:
        raise DataError("There are no images to evaluate on. Pass a split with images.")
    num_classes = task_of(model).num_names(model.output_shape[-1])
    known = class_names if class_names is not None else class_names_of(model)
    names = list(map(str, range(num_classes))) if known is None else list(map(str, known))
    if len(names) != num_classes:
        raise ArgumentError(
            f"`class_names` must name {num_classes} classes. Received {len(names)}: {names!r}"
        )
    paths = data.paths if isinstance(data, Split) else None
    return task_of(model).predictions(labels, probabilities, names, paths)


def labels_and_probabilities(
    model: keras.Model, data: Any, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels `(num_images,)` and probabilities `(num_images, num_classes)`.

    Of other tasks the labels are as the outputs, `(num_images, num_outputs)`.
    """
    check_tensorflow("Predicting and evaluating")
    task = task_of(model)
    num_outputs = task.num_names(model.output_shape[-1])
    if isinstance(data, Split) and data.task != task.name:
        raise ArgumentError(
            f"The model has task={task.name!r}, the data has task={data.task!r}. Load the "
            f"data with task={task.name!r}."
        )
    if isinstance(data, Split):
        if data.num_classes != num_outputs:
            raise ArgumentError(
                f"The model tells {task.count(num_outputs)}, the data has "
                f"{task.count(data.num_classes)}. Load the data with the `class_names` of "
                "the model."
            )
        check_rules(model, data)
        images = data.images(image_size_of(model), batch_size=batch_size)
        return data.labels, predict_probabilities(model, images if len(data) else None)
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        outputs = predict_probabilities(model, x if len(x) else None, batch_size)
        return task.given_labels(y, num_outputs), outputs
    is_other = isinstance(data, (str, bytes, dict, os.PathLike, np.ndarray))
    if is_other or not hasattr(data, "__iter__") or (isinstance(data, list) and not _pairs(data)):
        raise ArgumentError(
            "`data` must be a split (`data.test`), a pair (images, labels) or a "
            f"tf.data.Dataset. Received: {reprlib.repr(data)}. Load files with "
            "`kerastl.load_data`."
        )
    alone = on_one_device(model)
    pairs = [
        (task.given_labels(y, num_outputs), task.answers(alone.predict_on_batch(x)))
        for x, y in data
    ]
    if not pairs:
        return np.zeros(0, "int64"), np.zeros((0, model.output_shape[-1]), "float32")
    return np.concatenate([y for y, _ in pairs]), np.concatenate([p for _, p in pairs])


def _pairs(batches: list[Any]) -> bool:
    return all(isinstance(one, (list, tuple)) and len(one) == 2 for one in batches)


def predict_probabilities(model: keras.Model, images: Any, batch_size: int = 32) -> np.ndarray:
    """Return the probabilities of raw pixels, an array or a batched dataset, in order.

    One batch is run layer by layer, since tracing takes longer. For more, `predict` traces once,
    where `predict_on_batch` would for each new size of a batch.
    """
    if images is None:
        return np.zeros((0, model.output_shape[-1]), "float32")
    alone, batches = on_one_device(model), images
    if not isinstance(images, tf.data.Dataset):
        batches = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    task = task_of(model)
    if batches.cardinality() == 1:
        return np.asarray(task.answers(alone(next(iter(batches)), training=False)))
    if task.has_boxes:  # maps of all images together would fill the memory
        return np.concatenate([task.answers(alone.predict_on_batch(one)) for one in batches])
    return np.asarray(alone.predict(batches, verbose=0))
