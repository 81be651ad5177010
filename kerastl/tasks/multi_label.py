"""Several labels per image: each output is the probability of a label."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from kerastl._features import USUAL
from kerastl._label_columns import LabelColumns
from kerastl._measure import Measure
from kerastl._task import Labels, Names, Tensors, Told
from kerastl.advice.probe import SoftmaxProbe
from kerastl.advice.scores import leave_one_out_leep
from kerastl.data.cells import DELIMITER
from kerastl.data.classes import class_places, order_classes
from kerastl.data.loaded import join_names
from kerastl.errors import DataError
from kerastl.results.measures import Measured
from kerastl.results.predictions import BasePredictions, most_probable
from kerastl.serving.signatures import names_of_rows
from kerastl.tasks._label_measures import (
    THRESHOLD,
    label_losses,
    measure_labels,
    precision_by_image,
)
from kerastl.tasks._rows import TRUE_COLUMN, RowTask
from kerastl.tasks._thresholds import best_thresholds, read_thresholds, threshold_of_cost

ANSWER_COLUMN = "probability of "
_AVERAGE_PRECISION = Measure("mean_average_precision", "mAP")
_MACRO_F1 = Measure("macro_f1", "macro F1")
_ALL_RIGHT = Measure("subset_accuracy", "all labels right")


_PRESENT = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def parse_indicators(cells: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the labels of a row of a table that has a column of 0 and 1 for each label."""
    for name, cell in cells.items():
        if cell.lower() not in _PRESENT:
            raise DataError(
                "The column of a label must contain 1 (the image has the label) or 0. "
                f"Received: {cell!r} in column {name!r}, {where}. Complete the cell, or pass "
                "the columns of the labels as `label_column`."
            )
    return tuple(name for name, cell in cells.items() if _PRESENT[cell.lower()])


@dataclass(frozen=True, eq=False, repr=False)
class LabelPredictions(BasePredictions):
    """Which labels a model answered, and how probable it held each."""

    thresholds: np.ndarray | float = THRESHOLD  # `(num_labels,)`, or one for all

    @property
    def answers(self) -> np.ndarray:
        """Which labels are above their thresholds, bool `(num_images, num_labels)`."""
        return np.asarray(self.outputs > self.thresholds)

    @property
    def losses(self) -> np.ndarray:
        """The mean binary cross-entropy of each image in nats, `(num_images,)`."""
        return label_losses(self.labels, self.outputs)

    def measures(self) -> Measured:
        """Return what `evaluate` returns."""
        return measure_labels(self.labels, self.outputs, self.thresholds)

    def texts(self, index: int) -> tuple[str, str]:
        """Return the labels of an image and those answered, parted by `|`."""
        return self._joined(self.labels[index] > 0.5), self._joined(self.answers[index])

    def columns(self, index: int) -> dict[str, float]:
        """Return whether the image has each label, and its probability."""
        truth = zip(self.class_names, (self.labels[index] > 0.5).tolist(), strict=True)
        named = zip(self.class_names, self.outputs[index].tolist(), strict=True)
        true_columns = {TRUE_COLUMN + name: int(value) for name, value in truth}
        return true_columns | {ANSWER_COLUMN + name: value for name, value in named}

    def _joined(self, chosen: np.ndarray) -> str:
        return (
            DELIMITER.join(self.class_names[place] for place in np.flatnonzero(chosen))
            or "no label"
        )


class MultiLabel(RowTask):
    """Any number of labels an image."""

    name = "multi_label"
    singular, plural = "label", "labels"
    supports = USUAL | {"thresholds", "map", "integers"}
    thresholds: np.ndarray | float = THRESHOLD  # `(num_labels,)`, or one for all
    columns = LabelColumns(
        "labels", ("labels", "label", "tags", "classes"), True, parse_indicators, is_parted=True
    )
    label_shape = "0 and 1 (n, num_labels)"

    activation = activation_in_0_1 = "sigmoid"
    loss = "binary_crossentropy"
    answer_column = ANSWER_COLUMN
    score = _AVERAGE_PRECISION
    watched = "binary_accuracy"
    head_start = "logistic regression of each label on the embeddings"
    watched_title = "Correct labels"

    predictions: Callable[..., Any] = LabelPredictions
    measures = (
        _AVERAGE_PRECISION,
        _MACRO_F1,
        Measure("micro_f1", "micro F1"),
        _ALL_RIGHT,
        Measure("hamming_loss", "Hamming loss"),
        Measure("log_loss", "log loss", "number"),
    )
    row_measures = (_AVERAGE_PRECISION, _MACRO_F1, _ALL_RIGHT)
    output_measures = (
        Measure("precision", "precision"),
        Measure("recall", "recall"),
        Measure("f1", "F1"),
        Measure("average_precision", "average precision"),
        Measure("threshold", "threshold"),
    )
    output_bar = "average_precision"
    output_note = (
        "A label is predicted if its probability is above its threshold. The thresholds "
        "maximise F1 on the validation images; with few images they are 0.5. Average "
        "precision depends only on the order of the probabilities."
    )
    title = "several labels per image"
    worst_note = "wrong labels"
    hub_pipeline, hub_tag = "image-classification", "multi-label"
    answers_with = "one probability per label"
    limit = "It knows only these labels."
    served_names = frozenset({"probabilities", "present", "label"})
    told_as, told_columns = "labels", ("label", "label", "probability")

    def table_names(self, listing: Any, class_names: Names | None) -> list[str]:
        """Return the columns of labels, or the labels that occur in the one column of all."""
        found = listing.columns
        if len(found) == 1:
            found = list(dict.fromkeys(one for entry in listing.entries for one in entry.targets))
            if found and {*found} <= {"0", "1"}:
                raise DataError(
                    "The labels must have names. Received only 0 and 1 in column "
                    f"{listing.columns[0]!r}. Pass several columns of 0 and 1 as "
                    "`label_column`, or pass task='classification'."
                )
        return order_classes(found, class_names)

    def table_labels(self, entries: Sequence[Any], names: Names) -> np.ndarray:
        """Return 1 where a row has the label of that name."""
        found = {label for entry in entries for label in entry.targets}
        places = class_places(found, names)
        matrix = np.zeros((len(entries), len(names)), np.float32)
        for row, entry in enumerate(entries):
            matrix[row, [places[label] for label in entry.targets]] = 1
        return matrix

    def check_rows(self, values: np.ndarray, part: str) -> np.ndarray:
        """Return the labels of arrays, which must be 0 and 1."""
        received = f"Received: shape {values.shape}, dtype {values.dtype} in {part}."
        values = super().check_rows(values, part)
        if not np.isin(values, (0, 1)).all():
            row = int(np.flatnonzero(~np.isin(values, (0, 1)).all(1))[0])
            raise DataError(
                f"With task='multi_label', `y` must contain only 0 and 1. {received} Row "
                f"{row} is {values[row].tolist()}. Pass task='regression' for numbers."
            )
        return values

    def check_labels(self, labels: Labels, names: Names, *, are_named: bool) -> list[str]:
        """Raise unless some image has a label; warn of labels that teach nothing."""
        self.check_names(names)
        train = labels["train"]
        if not train.any():
            raise DataError(
                "No training image has a label. Add images with labels, or correct the labels."
            )
        warnings = [
            f"no image of {join_names(absent)} in {part}"
            for part, values in labels.items()
            if (absent := [n for n, count in zip(names, values.sum(0), strict=True) if not count])
        ]
        always = [name for name, share in zip(names, train.mean(0), strict=True) if share == 1]
        if always:
            warnings.append(f"every training image has: {join_names(always)}")
        if len(names) > 1 and (np.concatenate(list(labels.values())).sum(1) == 1).all():
            warnings.append(
                "each image has exactly one label: if no image can have more, use "
                "task='classification'"
            )
        return warnings

    def stratification_groups(self, labels: np.ndarray) -> np.ndarray:
        """Return the rarest of an image's labels, so that it is in each part; -1 without one."""
        rarity = np.where(labels > 0, labels.sum(0), np.inf)
        return np.where(labels.any(1), rarity.argmin(1), -1)

    def images_of(self, labels: np.ndarray, output: int) -> np.ndarray:
        """Return the images that have a label."""
        return np.flatnonzero(labels[:, output])

    def count_images(self, labels: np.ndarray, num_outputs: int) -> list[int]:
        """Return how many images have each label."""
        found: list[int] = labels.sum(0).astype(int).tolist()
        return found

    def compiled_metrics(self, num_outputs: int) -> list[Any]:
        """Return the fraction of correct labels, and the PR area for rare labels."""
        area = keras.metrics.AUC(
            curve="PR", multi_label=True, num_labels=num_outputs, name="auc_pr"
        )
        return [self.watched, area]

    def phase_loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Return the binary cross-entropy."""
        return keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)

    def phase_metrics(self) -> list[Any]:
        """Return the share of correct labels; Keras' own counts no label that mixup changed."""
        return [binary_accuracy]

    def fit_head(
        self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit a `SoftmaxProbe` of two classes to each label, one against the rest.

        Returns:
            `kernel` and `bias`, float32, of a sigmoid. A label that all examples have, or none,
            gets a bias alone: the log-odds of its share, with half an image added to either side.
        """
        kernel = np.zeros((x.shape[1], num_outputs), "float32")
        bias = np.zeros(num_outputs, "float32")
        for label, column in enumerate(y.T.astype("int64")):
            count = int(column.sum())
            if count in (0, len(column)):
                bias[label] = np.log((count + 0.5) / (len(column) - count + 0.5))
                continue
            probe = SoftmaxProbe(seed=seed).fit(x, column, groups)
            kernel[:, label] = probe.coef_[1] - probe.coef_[0]
            bias[label] = probe.intercept_[1] - probe.intercept_[0]
        return kernel, bias

    def head_measures(
        self, labels: np.ndarray, outputs: np.ndarray, train_labels: np.ndarray
    ) -> dict[str, float]:
        """Return the binary cross-entropy and the share of correct labels."""
        kept = np.clip(outputs, 1e-7, 1 - 1e-7)
        return {
            "loss": float(-np.where(labels > 0.5, np.log(kept), np.log1p(-kept)).mean()),
            "binary_accuracy": float(self.kept_scores(labels, outputs).mean()),
        }

    def image_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return numbers whose mean is the mean average precision, spread as its jackknife is.

        Labels that no image has are left out; 0 where there are no others.
        """
        if not labels.any():
            return np.zeros(len(labels))
        known = labels[:, labels.any(0)].T > 0.5, outputs[:, labels.any(0)].T
        return np.mean([precision_by_image(*one) for one in zip(*known, strict=True)], axis=0)

    def guess(self, labels: np.ndarray) -> float:
        """Return the mean share of the images that have a label: the precision of any order."""
        shares = labels.mean(0)
        return float(shares[shares > 0].mean())

    def source_share(self, theta: np.ndarray, labels: np.ndarray) -> float:
        """Return what `leave_one_out_leep` finds of each label, by its entropy."""
        shares = np.clip(labels.mean(0, dtype="float64"), 1e-12, 1 - 1e-12)
        entropies = -shares * np.log(shares) - (1 - shares) * np.log1p(-shares)
        found = [leave_one_out_leep(theta, column).explained for column in labels.T]
        return float(np.average(found, weights=entropies))

    def kept_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return the share of correct labels of each image."""
        return np.asarray(((labels > 0.5) == (outputs > self.thresholds)).mean(1))

    def epoch_score(self, logs: Mapping[str, Any]) -> float:
        """Return the share of correct labels in an epoch."""
        return float(logs["val_binary_accuracy"])

    def what_it_does(self, class_names: Names, *, names_them: bool = False) -> str:
        """Return what a model does, as the rest of a sentence."""
        return f"predicts which of {len(class_names)} labels an image has"

    def choose_settings(self, labels: np.ndarray, outputs: np.ndarray, cost: float | None) -> str:
        """Return the threshold of each label as a JSON list: of the highest F1, or by a cost."""
        if cost is None:
            return json.dumps(best_thresholds(labels, outputs))
        return json.dumps([threshold_of_cost(cost)] * labels.shape[1])

    def with_settings(self, settings: str | None) -> "MultiLabel":
        """Return the task with these thresholds."""
        if not settings:
            return self
        own = copy.copy(self)
        own.thresholds = read_thresholds(settings)
        own.predictions = partial(LabelPredictions, thresholds=own.thresholds)
        return own

    def describe_outputs(self, outputs: np.ndarray, names: Names, top: int | None) -> list[Told]:
        """Return the labels above their thresholds, or the requested number of labels."""
        if top is not None:
            return most_probable(outputs, names, top)
        kept = np.where(outputs > self.thresholds, outputs, -1.0)
        return most_probable(kept, names, int((kept >= 0).sum()))

    def serve(self, outputs: Any, class_names: list[str]) -> Tensors:
        """Return the probability of each label, whether it is above its threshold, and its name."""
        return {
            "probabilities": outputs,
            "present": outputs > self.thresholds,
            "label": names_of_rows(outputs, class_names),
        }

    def agreement(self, got: np.ndarray, expected: np.ndarray) -> float:
        """Return the share of equal answers among all labels of all images."""
        return float(((got > self.thresholds) == (expected > self.thresholds)).mean())

    def share_right(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of right answers among all labels of all images."""
        return float(self.kept_scores(labels, outputs).mean())


TASK = MultiLabel()


def binary_accuracy(labels: Any, predicted: Any) -> Any:
    """Return the share of correct labels, of labels that mixup may have changed."""
    right = keras.ops.equal(labels > 0.5, predicted > THRESHOLD)
    return keras.ops.mean(keras.ops.cast(right, "float32"), axis=-1)
