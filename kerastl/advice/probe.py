"""Linear classifiers on embeddings: what a head on frozen features can reach."""

import warnings
from typing import NamedTuple, Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from kerastl.advice.ridge import (
    NUM_FOLDS,
    first_views,
    fit_ridge,
    one_blas_thread,
    stratified_folds,
)
from kerastl.errors import ArgumentError

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
CLIP = 10.0  # deviations from the mean: a feature that is nearly always 0 may lie far beyond
MIDDLE_PENALTY = 1e-2  # where no class has images enough to choose by
# A penalty is chosen on so many images: more would cost minutes and decide the same.
MAX_IMAGES_TO_CHOOSE = 1000
IMAGES_PER_CLASS_TO_CHOOSE = 5
ABSENT = -30.0
"""The score of a class without training images, as an output bias: never the answer."""

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class LinearClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the probes share: one row of `coef_` a class, on raw features."""

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray

    def __init__(self, num_folds: int = 3, seed: int = 0):
        self.num_folds = num_folds
        self.seed = seed

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Return the scores `(num_examples, num_classes)`.

        Of two classes `(num_examples,)`: how much higher that of the second is.
        """
        scores = self._scores(x)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return labels `(num_examples,)`."""
        columns = self._scores(x).argmax(1)
        labels: np.ndarray = self.classes_[columns]
        return labels

    def _scores(self, x: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        x = validate_data(self, x, reset=False)
        scores: np.ndarray = np.asarray(x, "float32") @ self.coef_.T + self.intercept_
        return scores

    def _validated(
        self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features and labels as arrays, by scikit-learn's rules."""
        if getattr(x, "ndim", 2) > 2:
            raise ArgumentError(
                f"`x` must be of shape (num_examples, dim). Received shape: {np.shape(x)}. Pool "
                "feature maps to vectors first."
            )
        x, y = validate_data(self, x, y)
        check_classification_targets(y)
        if groups is not None and np.shape(groups) != y.shape:
            raise ArgumentError(
                f"`groups` must be of shape (num_examples,). Received shape: {np.shape(groups)} "
                f"for {len(y)} examples."
            )
        if len(np.unique(y)) < 2:
            raise ArgumentError(
                "A probe needs at least two classes. Received labels of one class: "
                f"{np.unique(y).tolist()}. Add images of another class."
            )
        return x, y


class SoftmaxProbe(LinearClassifier):
    """Multinomial logistic regression on standardised features, with a cross-validated penalty.

    Uses scikit-learn's `LogisticRegression` (L-BFGS) on features with zero mean and unit variance;
    standard deviations below the median are raised to the median. The inverse penalty `C` is the
    value of `PENALTIES` with the lowest log loss over stratified folds. (The strongest penalty
    within one standard error lost 2 points of accuracy on average over five open data sets.) The
    log loss is used instead of the accuracy, because it distinguishes penalties on a hundred images
    and keeps the probabilities calibrated. The penalty is chosen on one view of at most
    `MAX_IMAGES_TO_CHOOSE` images, without classes that have a single image. The fitted `coef_` and
    `intercept_` apply to the
    raw features.

    Args:
        num_folds: at least 2. Default 3: in 15 of 20 trials it chose the same penalty as 5 folds
            over all views, and the held-out log loss was never more than 0.02 higher.
        seed: of the folds.

    Attributes:
        classes_: `(num_classes,)`.
        coef_: `(num_classes, dim)`, also with two classes.
        intercept_: `(num_classes,)`.
        C_: the inverse penalty chosen.

    Example:
        >>> embeddings = kerastl.extract_embeddings(model, data.train)
        >>> probe = kerastl.SoftmaxProbe().fit(embeddings.x, embeddings.y)
        >>> probe.score(*kerastl.extract_embeddings(model, data.test))
    """

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Fit to features `(num_examples, dim)` and labels `(num_examples,)`.

        `groups` `(num_examples,)` keeps several views of one image in one fold.
        """
        x, y = self._validated(x, y, groups)
        standard = standardised_rows(x)
        with one_blas_thread():
            rows = rows_to_choose_by(standard.x, y, groups, self.num_folds, self.seed)
            path = penalty_path(rows, np.unique(y), views_of(y, groups))
            coef, intercept, self.classes_ = fit_softmax(standard.x, y, path.penalty, path.start)
        self.C_ = path.penalty
        self.coef_, self.intercept_ = standard.raw(coef, intercept)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities `(num_examples, num_classes)`."""
        probabilities: np.ndarray = softmax(self._scores(x), axis=1)
        return probabilities


class LinearProbe(LinearClassifier):
    """Ridge regression on class indicators in closed form: the cheapest probe.

    One decomposition gives the penalty (by generalised cross-validation) and the out-of-fold scores
    of every example, without refitting. The result is exact up to 2048 features or images. With
    more images than features, the images are read in blocks, so `x` can be a memory map of any
    size.

    Args:
        num_folds: at least 2. Default 5.
        seed: random seed of the folds. The same labels, groups and seed give the same folds, so you
            can compare probes on several stages image by image.

    Attributes:
        classes_: `(num_classes,)`.
        coef_: `(num_classes, dim)` for raw features.
        intercept_: `(num_classes,)`.
        penalty_: on standardised features.
        out_of_fold_: `(num_examples, num_classes)`, out-of-fold scores.
        is_right_: `(num_images,)`, whether the out-of-fold prediction of the first view is correct.
        cv_accuracy_: mean of `is_right_`, over stratified folds. (Leave-one-out would be far below
            chance on noise, 0.23 for two classes of 50, because it lowers the mean of the class.)
        temperature_: the T for which `softmax(scores / T)` is calibrated on out-of-fold scores.
    """

    def __init__(self, num_folds: int = NUM_FOLDS, seed: int = 0):
        self.num_folds = num_folds
        self.seed = seed

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Fit to features `(num_examples, dim)` and labels `(num_examples,)`.

        `groups` `(num_examples,)` keeps several views of one image in one fold.
        """
        x, y = self._validated(x, y, groups)
        self.classes_, columns = np.unique(y, return_inverse=True)
        first = first_views(y, groups)[0]
        folds = stratified_folds(y, self.num_folds, self.seed, groups)
        with one_blas_thread():
            fit = fit_ridge(x, columns, folds, grouped=len(first) < len(y))
        self.coef_, self.intercept_, self.penalty_, self.out_of_fold_ = fit
        self.is_right_ = self.out_of_fold_[first].argmax(1) == columns[first]
        self.cv_accuracy_ = float(self.is_right_.mean())
        self.temperature_ = fit_out_of_fold_temperature(self.out_of_fold_[first], columns[first])
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities `(num_examples, num_classes)`."""
        probabilities: np.ndarray = softmax(self._scores(x) / self.temperature_, axis=1)
        return probabilities


def head_weights(
    probe: LinearClassifier, num_classes: int, *, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what gives a Dense layer the scores of a probe.

    Args:
        probe: Fitted to labels from 0 to `num_classes - 1`.
        num_classes: Units of the layer. A class without training images is never answered.
        temperature: Divides the scores. Default 1; `LinearProbe.temperature_` calibrates a softmax.

    Returns:
        `kernel` `(dim, num_classes)` and `bias` `(num_classes,)`, float32.

    Raises:
        ArgumentError: The labels are no such numbers.
    """
    classes = probe.classes_
    if classes.dtype.kind not in "iu" or classes[0] < 0 or classes[-1] >= num_classes:
        raise ArgumentError(
            f"The probe's labels must be ints from 0 to {num_classes - 1} for a head of "
            f"{num_classes} classes. Received: {classes.tolist()[:10]}. Number the classes from "
            "0 before you fit the probe."
        )
    kernel = np.zeros((probe.coef_.shape[1], num_classes), "float32")
    bias = np.full(num_classes, ABSENT, "float32")
    kernel[:, classes] = probe.coef_.T / temperature
    bias[classes] = probe.intercept_ / temperature
    return kernel, bias


def fit_out_of_fold_temperature(scores: np.ndarray, columns: np.ndarray) -> float:
    """Return the T from 0.01 to 100 for which `softmax(scores / T)` has the least log loss.

    Guo and others, 2017: On Calibration of Modern Neural Networks.

    Args:
        scores: `(num_examples, num_classes)`, held out.
        columns: `(num_examples,)` int64, the class of each, from 0.
    """

    def loss(log_temperature: float) -> float:
        return log_loss(scores / np.exp(log_temperature), columns)

    bounds = (np.log(0.01), np.log(100))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


class StandardRows(NamedTuple):
    """Features `(n, dim)` of zero mean and unit deviation, float32, and what they were."""

    x: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def raw(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights for raw features from weights for these."""
        coef = coef / self.deviation
        return coef, intercept - coef @ self.mean


def standardised_rows(x: np.ndarray) -> StandardRows:
    """Return features in units of their deviation, or of the median one where it is less."""
    x = np.asarray(x, "float32")
    mean, deviation = x.mean(0), x.std(0)
    deviation = np.maximum(deviation, max(float(np.median(deviation)), 1e-6))
    return StandardRows(np.clip((x - mean) / deviation, -CLIP, CLIP), mean, deviation)


def views_of(y: np.ndarray, groups: np.ndarray | None) -> float:
    """Return how many examples there are of an image."""
    return len(y) / len(first_views(y, groups)[0])


def rows_to_choose_by(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, num_folds: int, seed: int
) -> Rows:
    """Return the first view, label and fold of the images that a penalty is chosen on."""
    images = first_views(y, groups)[0]
    most = max(MAX_IMAGES_TO_CHOOSE, IMAGES_PER_CLASS_TO_CHOOSE * len(np.unique(y)))
    if len(images) > most:
        images = np.random.default_rng(seed).choice(images, most, replace=False)
    _, column, counts = np.unique(y[images], return_inverse=True, return_counts=True)
    images = images[counts[column] > 1]  # a single image cannot be both learnt from and held out
    return x[images], y[images], stratified_folds(y[images], num_folds, seed)


class PenaltyPath(NamedTuple):
    """The inverse penalty of least log loss, and what it gave.

    `out_of_fold` `(num_images, num_classes_there)` has the scores of each image under the fit
    without its fold; `start` the mean fit of the folds, a row for every class.
    """

    penalty: float
    out_of_fold: np.ndarray
    start: tuple[np.ndarray, np.ndarray] | None


def penalty_path(rows: Rows, all_classes: np.ndarray, views: float) -> PenaltyPath:
    """Fit each fold from the strongest penalty on, until the log loss has risen twice.

    Args:
        rows: of `rows_to_choose_by`.
        all_classes: sorted, also those that are not among the rows.
        views: how many examples a row stands for.
    """
    x, labels, folds = rows
    classes, columns = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return PenaltyPath(MIDDLE_PENALTY, np.zeros((len(labels), len(classes))), None)
    coefs = np.zeros((int(folds.max()) + 1, len(classes), x.shape[1]), "float32")
    intercepts = np.zeros(coefs.shape[:2], "float32")
    losses, best = list[float](), PenaltyPath(MIDDLE_PENALTY, np.zeros(0), None)
    for penalty in PENALTIES:
        scores = np.zeros((len(labels), len(classes)))
        for fold in range(len(coefs)):
            held_out = folds == fold
            start = (coefs[fold], intercepts[fold]) if losses else None
            train = x[~held_out], columns[~held_out]
            coefs[fold], intercepts[fold], _ = fit_softmax(*train, penalty * views, start)
            scores[held_out] = x[held_out] @ coefs[fold].T + intercepts[fold]
        losses.append(log_loss(scores, columns))
        if losses[-1] == min(losses):
            best = PenaltyPath(penalty, scores, (coefs.mean(0), intercepts.mean(0)))
        elif losses[-1] > losses[-2] > min(losses):
            break
    assert best.start is not None  # noqa: S101  # the first penalty was the best so far
    places = np.searchsorted(all_classes, classes)
    coef = np.zeros((len(all_classes), x.shape[1]), "float32")
    intercept = np.zeros(len(all_classes), "float32")
    coef[places], intercept[places] = best.start
    return best._replace(start=(coef, intercept))


def log_loss(scores: np.ndarray, columns: np.ndarray) -> float:
    """Return the mean cross-entropy of classes under the softmax of scores."""
    return -float(log_softmax(scores, axis=1)[np.arange(len(columns)), columns].mean())


def row_a_class(coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn keeps one row for two classes, the difference of their scores: halve it."""
    if len(coef) > 1:
        return coef, intercept
    return np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2


def fit_softmax(
    x: np.ndarray,
    y: np.ndarray,
    penalty: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `(coef, intercept, classes)`, one row a class also for two classes."""
    model = LogisticRegression(C=penalty, max_iter=300, tol=1e-3, warm_start=True)
    if start is not None:
        binary = len(start[0]) == 2
        model.coef_ = 2 * start[0][1:] if binary else start[0].copy()
        model.intercept_ = 2 * start[1][1:] if binary else start[1].copy()
    with warnings.catch_warnings():
        # 300 steps short of the tolerance change no decision; the folds judge the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return *row_a_class(model.coef_, model.intercept_), model.classes_
