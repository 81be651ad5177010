"""One class per image: each output is the probability of a class."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastl._features import FEATURES
from kerastl._label_columns import ONE_CLASS
from kerastl._measure import Measure
from kerastl._task import Labels, Names, Task, Tensors, Told
from kerastl.advice.blend import BlendProbe
from kerastl.advice.evidence import beats_chance
from kerastl.advice.probe import head_weights
from kerastl.advice.scores import leave_one_out_leep
from kerastl.data.cells import DELIMITER
from kerastl.data.classes import (
    by_value,
    check_classes,
    class_places,
    order_classes,
    value_places,
    whole_number,
)
from kerastl.errors import ArgumentError, DataError
from kerastl.results.predictions import Predictions, most_probable

TOP_K = 5
"""The most classes that `top_k_label` names."""

_ACCURACY = Measure("accuracy", "Accuracy")
_MACRO_F1 = Measure("macro_f1", "Macro F1")
_LOG_LOSS = Measure("log_loss", "Log loss", "number")
_CALIBRATION = Measure("ece", "Calibration error")


class Classification(Task):
    """One class of several."""

    name = "classification"
    singular, plural = "class", "classes"
    supports = frozenset(FEATURES) - {"thresholds"}  # the most probable class is answered
    model_name = "transfer_model"
    fingerprint = ""

    usual_head = "stages"
    head_start = "logistic regression and LDA on the embeddings, weighted out of fold"
    has_one_class = True
    reads_folders = True
    columns = ONE_CLASS
    least_outputs = 2
    activation = activation_in_0_1 = "softmax"
    loss = "sparse_categorical_crossentropy"
    score = Measure("accuracy", "accuracy")
    watched = "accuracy"
    watched_title = "Accuracy"

    predictions = Predictions
    measures = (_ACCURACY, _MACRO_F1, _LOG_LOSS, _CALIBRATION)
    card_measures = (
        _ACCURACY,
        Measure("macro_precision", "Macro precision"),
        Measure("macro_recall", "Macro recall"),
        _MACRO_F1,
        _CALIBRATION,
        _LOG_LOSS,
    )
    output_measures = (
        Measure("precision", "precision"),
        Measure("recall", "recall"),
        Measure("f1", "F1"),
    )
    output_bar = "f1"
    title = "image classification"
    worst_note = "wrong labels"
    page_part = "classification.html.j2"
    page_sections = (
        ("results", "Results"),
        ("confusion", "Confusions"),
        ("worst", "Worst answers"),
        ("looks", "Where it looks"),
    )
    hub_pipeline = hub_tag = "image-classification"
    hub_metrics = (("accuracy", "accuracy", "Accuracy"), ("macro_f1", "f1", "Macro F1"))
    answers_with = "one probability per class"
    limit = "It predicts one of its classes for every image, even if none fits."
    served_names = frozenset({"probabilities", "class_id", "label"})
    told_as, told_columns = "classes", ("class", "label", "probability")

    def describe_names(self, class_names: Names) -> str:
        """Return how many classes there are."""
        return self.count(len(class_names))

    def table_names(self, listing: Any, class_names: Names | None) -> list[str]:
        """Return the classes that occur; warn where they look like what is of another task."""
        found = (entry.label for entry in listing.entries)
        names = order_classes(found, class_names)
        listing.warnings += _doubts(names)
        return names

    def table_labels(self, entries: Sequence[Any], names: Names) -> np.ndarray:
        """Return the number of each entry's class."""
        places = class_places((entry.label for entry in entries), names)
        return np.array([places[entry.label] for entry in entries])

    def array_labels(
        self, labels: Labels, class_names: Names | None, own_names: Names | None = None
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Number labels of any usual form from 0; `own_names` come into the order asked for."""
        if own_names is None:
            return number_labels(labels, class_names)
        numbered, own = number_labels(labels, own_names, by_place=True)
        names = order_classes(own, class_names) if class_names or by_value(own) else own
        places = class_places(own, names)
        order = np.array([places[name] for name in own])
        return {part: order[values] for part, values in numbered.items()}, names

    def given_labels(self, labels: Any, num_outputs: int) -> np.ndarray:
        """Return ints `(n,)` of labels `(n,)`, `(n, 1)` or one-hot `(n, num_classes)`."""
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] == num_outputs > 1:
            return np.asarray(labels.argmax(1))
        fits = labels.ndim < 2 or labels.shape[1:] == (1,)
        if not (fits and np.isin(labels, np.arange(num_outputs)).all()):
            raise ArgumentError(
                f"Labels must be ints from 0 to {num_outputs - 1}, or one-hot rows of "
                f"{num_outputs}, because the model has {num_outputs} outputs. Received: "
                f"{reprlib.repr(labels)}. Load images with `kerastl.load_data(..., "
                "class_names=...)`, which numbers them."
            )
        return labels.reshape(-1)

    def check_labels(self, labels: Labels, names: Names, *, are_named: bool) -> list[str]:
        """Raise unless there are two classes with images to train on; warn of lonely ones."""
        return check_classes(labels, names, absent_is_error=not are_named)

    def stratification_groups(self, labels: np.ndarray) -> np.ndarray:
        """Return the class of each image."""
        return labels

    def images_of(self, labels: np.ndarray, output: int) -> np.ndarray:
        """Return the images of a class."""
        return np.flatnonzero(labels == output)

    def count_images(self, labels: np.ndarray, num_outputs: int) -> list[int]:
        """Return how many images there are of each class."""
        found: list[int] = np.bincount(labels, minlength=num_outputs).tolist()
        return found

    def phase_loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Return the cross-entropy of one-hot labels."""
        return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)

    def class_weights(self, labels: np.ndarray, num_outputs: int, balance: float) -> np.ndarray:
        """Return the inverse frequency of each class to the power of `balance`, 1 on average."""
        counts = np.bincount(labels, minlength=num_outputs)
        weights = (len(labels) / np.maximum(counts, 1)) ** balance
        return np.asarray(weights * len(labels) / (weights @ counts))

    def fit_head(
        self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit a `BlendProbe`; a class without images is never answered."""
        return head_weights(BlendProbe(seed=seed).fit(x, y, groups), num_outputs)

    def image_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return which answers are right: their mean is the accuracy."""
        return np.asarray(outputs.argmax(1) == labels)

    def scores_of_rows(self, rows: Sequence[Mapping[str, str]]) -> np.ndarray:
        """Return which answers are right."""
        return np.array([row["label"] == row["answer"] for row in rows])

    def guess(self, labels: np.ndarray) -> float:
        """Return the share of the commonest class."""
        return float(np.bincount(labels).max() / len(labels))

    def beats_guess(self, scores: np.ndarray, labels: np.ndarray) -> bool:
        """Return whether the accuracy is better than a guess."""
        return beats_chance(int(scores.sum()), len(scores), np.bincount(labels).tolist())

    def source_share(self, theta: np.ndarray, labels: np.ndarray) -> float:
        """Return what `leave_one_out_leep` finds."""
        return leave_one_out_leep(theta, labels).explained

    def head_measures(
        self, labels: np.ndarray, outputs: np.ndarray, train_labels: np.ndarray
    ) -> dict[str, float]:
        """Return cross-entropy and accuracy."""
        of_label = outputs[np.arange(len(labels)), labels]
        return {
            "loss": float(-np.log(np.maximum(of_label, 1e-7)).mean()),
            "accuracy": self.share_right(outputs, labels),
        }

    def label_text(self, labels: np.ndarray, index: int, names: Names) -> str:
        """Return the class of one image."""
        return names[int(labels[index])]

    def measure_columns(self) -> list[str]:
        """Return the titles of `measure_cells`."""
        return ["accuracy", "95 % interval", "macro F1", "log loss", "ECE", "images"]

    def measure_cells(self, measures: Mapping[str, Any]) -> list[str]:
        """Return the accuracy, its interval, the others, and how many images there are."""
        low, high = measures["accuracy_interval"]
        others = (f"{measures[key]:.3f}" for key in ("macro_f1", "log_loss", "ece"))
        accuracy = f"{measures['accuracy']:.3f}"
        return [accuracy, f"{low:.3f}-{high:.3f}", *others, f"{measures['num_images']:,}"]

    def what_it_does(self, class_names: Names, *, names_them: bool = False) -> str:
        """Return what a model does, as the rest of a sentence."""
        of_images = "" if names_them else " of images"
        return f"classifies {len(class_names)} classes{of_images}"

    def test_sentence(self, measures: Mapping[str, Any]) -> str:
        """Return the accuracy as a sentence."""
        accuracy = f"{100 * measures['accuracy']:.1f}\N{NO-BREAK SPACE}%"
        return f"Test accuracy {accuracy} ({measures['num_images']:,} images)."

    def describe_outputs(self, outputs: np.ndarray, names: Names, top: int | None) -> list[Told]:
        """Return the most probable class, or the requested number of classes."""
        return most_probable(outputs, names, top or 1)

    def serve(self, outputs: Any, class_names: list[str]) -> Tensors:
        """Return the probabilities, the most probable class, and the most probable five."""
        names = tf.constant(class_names)
        top, top_ids = tf.math.top_k(outputs, k=min(TOP_K, len(class_names)))
        class_id = tf.argmax(outputs, axis=-1)
        return {
            "probabilities": outputs,
            "class_id": class_id,
            "label": tf.gather(names, class_id),
            "top_k_probability": top,
            "top_k_class_id": tf.cast(top_ids, tf.int64),
            "top_k_label": tf.gather(names, top_ids),
        }

    def agreement(self, got: np.ndarray, expected: np.ndarray) -> float:
        """Return for what share of the images the most probable class is the same."""
        return float((got.argmax(1) == expected.argmax(1)).mean())

    def share_right(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the accuracy."""
        return float((outputs.argmax(1) == labels).mean())


TASK = Classification()


def _doubts(names: Names) -> list[str]:
    """Warn of classes that look like what is of another task."""
    several = [name for name in names if any(mark in name for mark in f"{DELIMITER};,[")]
    if several and (2 * len(several) >= len(names) or DELIMITER in "".join(several)):
        return [
            f"{len(several)} classes look like several labels (such as {several[0]}): if an image "
            "can have several, pass task='multi_label'"
        ]
    if all(_is_number(name) for name in names) and any(whole_number(n) is None for n in names):
        return [
            f"the {len(names)} classes are numbers (such as {names[0]}): to predict a number, pass "
            "task='regression'"
        ]
    return []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def number_labels(
    labels: Labels, class_names: Names | None, *, by_place: bool = False
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Turn labels of any usual form into int64 from 0, `(n,)`, and say what they are called.

    They are ints `(n,)` or `(n, 1)`, one-hot rows `(n, num_classes)`, or texts. `class_names` name
    the ints in order, if they have names; by their value where all are whole numbers, unless ints
    are sure to be places (`by_place`).
    """
    flat = {part: _flatten(values, part) for part, values in labels.items()}
    if any(values.dtype.kind == "U" for values in flat.values()):
        return _number_texts(flat, class_names)
    if class_names is not None and by_value(class_names) and not by_place:
        flat = {
            part: values if _is_one_hot(labels[part]) else value_places(values, class_names)
            for part, values in flat.items()
        }
    together = np.concatenate(list(flat.values()))
    least, most = int(together.min()), int(together.max())
    num_classes = len(class_names) if class_names is not None else most + 1
    if least < 0 or most >= num_classes:
        limit = "" if class_names is None else f", and below {num_classes}, as named"
        raise DataError(
            f"Labels must be ints from 0{limit}. Received: labels from {least} to {most}. "
            "Remove the unlabelled images, or number the classes from 0."
        )
    names = [str(number) for number in range(num_classes)] if class_names is None else class_names
    return flat, list(names)


def _number_texts(
    labels: Labels, class_names: Names | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    texts = {part: values.astype(str).tolist() for part, values in labels.items()}
    found = {text for values in texts.values() for text in values}
    names = order_classes(found, class_names)
    places = class_places(found, names)
    return {
        part: np.array([places[text] for text in values], np.int64)
        for part, values in texts.items()
    }, names


def _is_one_hot(labels: np.ndarray) -> bool:
    if labels.ndim != 2 or labels.shape[1] == 1 or labels.dtype.kind not in "uifb":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _flatten(labels: np.ndarray, part: str) -> np.ndarray:
    """Return labels `(n,)` of ints or texts."""
    if _is_one_hot(labels):
        return labels.argmax(axis=1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind in "USO" and _are_texts(labels):
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in labels.tolist()])
    whole = labels.dtype.kind in "ui" or (
        labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels % 1 == 0).all()
    )
    if labels.ndim == 1 and whole:
        return labels.astype(np.int64)
    raise DataError(
        "Labels must be ints (n,), texts (n,) or one-hot rows (n, num_classes). Received: "
        f"shape {labels.shape}, dtype {labels.dtype} in {part}. Pass exactly one class per "
        "image, or pass task='multi_label' (0 and 1, one column per label) or "
        "task='regression' (numbers)."
    )


def _are_texts(labels: np.ndarray) -> bool:
    return len(labels) > 0 and all(isinstance(value, (str, bytes)) for value in labels.tolist())
