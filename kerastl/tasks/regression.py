"""Numbers per image: each output is the value of a target."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import Ridge, RidgeCV

from kerastl._label_columns import LabelColumns
from kerastl._measure import Measure
from kerastl._task import Labels, Names, Tensors, Told
from kerastl.advice.ridge import first_views, one_blas_thread
from kerastl.data.loaded import join_names
from kerastl.errors import DataError
from kerastl.results.measures import Arrays, Measured, bootstrap, centred_interval, none_if_nan
from kerastl.results.predictions import BasePredictions, spread
from kerastl.results.run_files import Json
from kerastl.serving.signatures import names_of_rows
from kerastl.tasks._rows import TRUE_COLUMN, RowTask

ANSWER_COLUMN = "predicted "
NUM_BINS = 10
IMAGES_PER_BIN = 5
"""The least number of images of like targets that are split alike."""

RIDGE_PENALTIES = tuple(np.logspace(-1, 5, 13))
"""On standardised features: from next to nothing to more than any embedding has examples for."""

MAX_IMAGES_TO_CHOOSE = 4000
"""The most images to choose the penalty on: more would cost minutes and decide the same."""

MAX_POINTS = 500
"""The most test images whose numbers are drawn."""

_R2 = Measure("r2", "R²", "number")


def parse_numbers(cells: Mapping[str, str], where: str) -> tuple[float, ...]:
    """Return the numbers of a row of a table, which must be finite."""
    found = []
    for name, cell in cells.items():
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"A target must be a finite number. Received: {cell!r} in column {name!r}, "
                f"{where}. Complete or remove the row, or pass the columns of the targets as "
                "`label_column`."
            )
        found.append(value)
    return tuple(found)


class ValuePredictions(BasePredictions):
    """Which numbers a model answered."""

    @property
    def losses(self) -> np.ndarray:
        """The mean squared error of each image, each target in its own deviation, `(n,)`."""
        deviation = self.labels.std(0)
        gaps = (self.outputs - self.labels) / np.where(deviation > 0, deviation, 1)
        return np.asarray((gaps.astype("float64") ** 2).mean(1))

    def measures(self) -> Measured:
        """Return what `evaluate` returns."""
        return measure_values(self.labels, self.outputs)

    def texts(self, index: int) -> tuple[str, str]:
        """Return the numbers of an image and those answered, named where there are several."""
        return self._named(self.labels[index]), self._named(self.outputs[index])

    def columns(self, index: int) -> dict[str, float]:
        """Return the true and the predicted value of each target."""
        truth = zip(self.class_names, self.labels[index].tolist(), strict=True)
        values = zip(self.class_names, self.outputs[index].tolist(), strict=True)
        true_columns = {TRUE_COLUMN + name: value for name, value in truth}
        return true_columns | {ANSWER_COLUMN + name: value for name, value in values}

    def summary(self) -> Json:
        """Return `answers`: `truth` and `values` of each target, of images spread over all."""
        some = spread(len(self), MAX_POINTS)
        pairs = zip(self.labels[some].T.tolist(), self.outputs[some].T.tolist(), strict=True)
        return {"answers": [{"truth": truth, "values": values} for truth, values in pairs]}

    def _named(self, values: np.ndarray) -> str:
        if len(values) == 1:
            return f"{values[0]:.4g}"
        return ", ".join(f"{n} {v:.4g}" for n, v in zip(self.class_names, values, strict=True))


class Regression(RowTask):
    """One number or more an image."""

    name = "regression"
    singular, plural = "target", "targets"
    columns = LabelColumns("targets", ("target", "value", "label"), True, parse_numbers)
    label_shape = "(n,) or (n, num_targets)"

    activation = activation_in_0_1 = "linear"
    loss = "mean_squared_error"
    watched = "mean_absolute_error"
    head_start = "ridge regression on the embeddings"
    takes_label_smoothing = False
    augmentation = "none"  # all others mirror images, and a mirror image may have another number
    watched_title = "Mean absolute error, in standard deviations"

    answer_column = ANSWER_COLUMN
    score = _R2
    predictions = ValuePredictions
    measures = row_measures = output_measures = (
        Measure("mean_absolute_error", "MAE", "quantity"),
        Measure("root_mean_squared_error", "RMSE", "quantity"),
        _R2,
        Measure("median_absolute_error", "median error", "quantity"),
    )
    title = "image regression"
    worst_note = "wrong values"
    hub_tag = "regression"  # Hugging Face has no name for the pipeline
    answers_with = "the value of each target"
    limit = "It predicts a number for every image, even if the image is unrelated."
    output_name = served_output = "values"
    served_names = frozenset({"values", "target"})
    has_probabilities = False
    told_as, told_columns = "values", ("target", "target", "value")
    told_digits = (".4g", ".9g")
    takes_top = False

    def table_names(self, listing: Any, class_names: Names | None) -> list[str]:
        """Return the names given, or those of the columns."""
        columns = listing.columns
        if class_names is not None and len(class_names) != len(columns):
            raise DataError(
                f"The targets must be {join_names(class_names)}. Received the columns: "
                f"{join_names(columns)}. Rename the columns to the targets, or pass them as "
                "`label_column`."
            )
        return list(columns if class_names is None else class_names)

    def check_rows(self, values: np.ndarray, part: str) -> np.ndarray:
        """Return the numbers of arrays, of which `(n,)` is one target."""
        return super().check_rows(values[:, np.newaxis] if values.ndim == 1 else values, part)

    def default_names(self, count: int) -> list[str]:
        """Return `value`, or `value_0` and so on."""
        return ["value"] if count == 1 else [f"value_{place}" for place in range(count)]

    def check_labels(self, labels: Labels, names: Names, *, are_named: bool) -> list[str]:
        """Raise unless each target differs between the images to train on."""
        self.check_names(names)
        spreads = zip(names, np.ptp(labels["train"], 0), strict=True)
        constant = [name for name, spread in spreads if not spread]
        if constant:
            raise DataError(
                "A target must differ between training images. Received only one value of: "
                f"{join_names(constant)}. Remove the target or add images."
            )
        return []

    def stratification_groups(self, labels: np.ndarray) -> np.ndarray:
        """Return ten bins (fewer of less than 50 images) of the sum of the standardised targets."""
        deviation = labels.std(0)
        sums = ((labels - labels.mean(0)) / np.where(deviation > 0, deviation, 1)).sum(1)
        bins = max(1, min(NUM_BINS, len(sums) // IMAGES_PER_BIN))
        ranks = np.argsort(np.argsort(sums, kind="stable"), kind="stable")
        return np.asarray(ranks * bins // max(1, len(sums)))

    def images_of(self, labels: np.ndarray, output: int) -> np.ndarray:
        """Return all images, by the size of a target."""
        return np.argsort(labels[:, output], kind="stable")

    def count_images(self, labels: np.ndarray, num_outputs: int) -> list[int]:
        """Return the number of all images for each target."""
        return [len(labels)] * num_outputs

    def describe_labels(self, labels: np.ndarray) -> list[list[float]]:
        """Return the least, the quartiles and the greatest number of each target."""
        ends = np.percentile(labels.astype("float64"), [0, 25, 50, 75, 100], axis=0)
        found: list[list[float]] = ends.T.tolist()
        return found

    def phase_loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Return the mean squared error."""
        return keras.losses.MeanSquaredError()

    def fit_head(
        self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int, num_outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit ridge regression to each target, its penalty chosen by leaving one image out.

        scikit-learn's `RidgeCV` over features of zero mean and unit deviation, on one view of at
        most `MAX_IMAGES_TO_CHOOSE` images; each image is weighed as all its views. A feature that
        varies less than half of them do is divided by their median deviation: most units that a
        network hardly ever uses are nearly constant, and one image that does use one would be
        answered far beyond all targets (the angle of 520 photographs of hands, 680 to learn from:
        R2 0.33 without, 0.62 with).
        """
        x = np.asarray(x, "float64")
        mean, deviation = x.mean(0), x.std(0)
        deviation = np.maximum(deviation, np.median(deviation)) + 1e-6
        offset, scale = y.mean(0), np.where(y.std(0) > 0, y.std(0), 1)
        x, y = (x - mean) / deviation, (y - offset) / scale
        images = first_views(groups, groups)[0]
        views = len(x) / len(images)
        if len(images) > MAX_IMAGES_TO_CHOOSE:
            images = np.random.default_rng(seed).choice(images, MAX_IMAGES_TO_CHOOSE, replace=False)
        with one_blas_thread():
            chosen = RidgeCV(RIDGE_PENALTIES, alpha_per_target=True).fit(x[images], y[images])
            fit = Ridge(np.atleast_1d(chosen.alpha_) * views).fit(x, y)
        coef = np.reshape(fit.coef_, (y.shape[1], -1)) * scale[:, np.newaxis] / deviation
        intercept = np.reshape(fit.intercept_, -1) * scale + offset - coef @ mean
        return coef.T.astype("float32"), intercept.astype("float32")

    def head_measures(
        self, labels: np.ndarray, outputs: np.ndarray, train_labels: np.ndarray
    ) -> dict[str, float]:
        """Return squared and absolute error, in deviations of the training labels."""
        gaps = (outputs - labels) / self.target_scale(train_labels)[1]
        return {"loss": float((gaps**2).mean()), "mean_absolute_error": float(np.abs(gaps).mean())}

    def target_scale(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of each target, `(num_targets,)`; 1 of one without any."""
        deviation = labels.std(0)
        return labels.mean(0), np.where(deviation > 0, deviation, 1).astype("float32")

    def image_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return 1 minus the squared error over the variance: the mean is R², over the targets."""
        variance = labels.astype("float64").var(0)
        gaps = (labels.astype("float64") - outputs) ** 2
        return np.asarray(1 - (gaps / np.where(variance > 0, variance, 1)).mean(1))

    def guess(self, labels: np.ndarray) -> float:
        """Return 0, the R² of the mean."""
        return 0.0

    def kept_scores(self, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return minus the mean squared error of each image."""
        return np.asarray(-((labels - outputs) ** 2).mean(1))

    def epoch_score(self, logs: Mapping[str, Any]) -> float:
        """Return minus the mean squared error of an epoch."""
        return -float(logs["val_loss"])

    def what_it_does(self, class_names: Names, *, names_them: bool = False) -> str:
        """Return what a model does, as the rest of a sentence."""
        if names_them:
            return f"predicts {', '.join(class_names)}"
        return f"predicts {len(class_names)} numbers from an image"

    def describe_outputs(self, outputs: np.ndarray, names: Names, top: int | None) -> list[Told]:
        """Return the value of each target."""
        named = zip(names, outputs.tolist(), strict=True)
        return [{"target": name, "value": value} for name, value in named]

    def serve(self, outputs: Any, class_names: list[str]) -> Tensors:
        """Return the value and the name of each target."""
        return {"values": outputs, "target": names_of_rows(outputs, class_names)}

    def difference(self, got: np.ndarray, expected: np.ndarray) -> float:
        """Return the largest difference, relative to the largest value of each target."""
        scale = np.maximum(np.abs(expected).max(0), 1e-12)
        return float((np.abs(got - expected) / scale).max())

    def agreement(self, got: np.ndarray, expected: np.ndarray) -> None:
        """Return None: numbers have no labels to agree on."""

    def share_right(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        """Return None: a number is not right or wrong."""


TASK = Regression()


def measure_values(truth: np.ndarray, values: np.ndarray, *, seed: int = 0) -> Measured:
    """Return the measures of `evaluate` for numbers.

    Args:
        truth: `(num_images, num_targets)`; at least one image.
        values: predicted, `(num_images, num_targets)`.
        seed: of the draws of the bootstrap.
    """
    truth, values = truth.astype("float64"), values.astype("float64")
    each = [
        bootstrap(partial(_errors, *pair), len(truth), seed)
        for pair in zip(truth.T, values.T, strict=True)
    ]
    rows: list[Measured] = []
    for found, draws in each:
        row: Measured = {name: none_if_nan(value) for name, value in found.items()}
        intervals = {f"{name}_interval": _interval(draws[name], row[name], name) for name in found}
        rows.append(row | intervals)
    overall, intervals = {}, {}
    for name in each[0].found:
        overall[name] = none_if_nan(np.mean([one.found[name] for one in each]))
        drawn = np.mean([one.draws[name] for one in each], axis=0)
        intervals[name] = _interval(drawn, overall[name], name)
    return {**overall, "num_images": len(truth), "intervals": intervals, "targets": rows}


def _errors(truth: np.ndarray, values: np.ndarray, counts: np.ndarray) -> Arrays:
    """Return the measures of one target under each row of `counts`, as `bootstrap` takes them."""
    num_images = len(truth)
    gaps = np.abs(values - truth)
    centred = truth - truth.mean()
    squares = counts @ gaps**2
    spread = counts @ centred**2 - (counts @ centred) ** 2 / num_images
    order = np.argsort(gaps, kind="stable")
    reached = np.cumsum(counts[:, order], axis=1)
    middles = [
        gaps[order][np.argmax(reached > place, axis=1)]
        for place in ((num_images - 1) // 2, num_images // 2)
    ]
    varies = spread > 1e-12 * max(1e-300, (centred**2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where(varies, 1 - squares / spread, np.nan)
    return {
        "mean_absolute_error": counts @ gaps / num_images,
        "root_mean_squared_error": np.sqrt(squares / num_images),
        "r2": r2,
        "median_absolute_error": np.mean(middles, axis=0),
    }


def _interval(draws: np.ndarray, value: float | None, name: str) -> list[float] | None:
    high, least = (1.0, -np.inf) if name == "r2" else (np.inf, 0.0)
    return centred_interval(draws, value, high, least)
