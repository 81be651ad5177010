"""Linear classifiers on embeddings: what a head on frozen features can reach."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
# The penalty is chosen on at most so many images: more would cost minutes and decide the same.
MAX_IMAGES_TO_CHOOSE = 4000


class SoftmaxProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multinomial logistic regression on standardised features, its penalty chosen by folds.

    scikit-learn's `LogisticRegression` (L-BFGS) over features of zero mean and unit variance. The
    inverse penalty `C` is the strongest of `PENALTIES` whose log loss over stratified folds is
    within one standard error of the least (Breiman and others, 1984: Classification and
    Regression Trees). The log loss, not the accuracy, since it tells 1e-3 from 1 on a hundred
    images and keeps the probabilities honest. The fitted `coef_` and `intercept_` apply to the
    raw features.

    Args:
        num_folds: at least 2; fewer are used where a class has fewer images. Default 5.
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

    def __init__(self, num_folds: int = 5, seed: int = 0):
        self.num_folds = num_folds
        self.seed = seed

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "SoftmaxProbe":
        """Fit to features `(num_examples, dim)` and labels `(num_examples,)`.

        `groups` `(num_examples,)` keeps several views of one image in one fold.
        """
        x = np.asarray(x, "float32")
        mean, deviation = x.mean(0), x.std(0) + 1e-6
        standardised = (x - mean) / deviation
        groups = np.arange(len(y)) if groups is None else groups
        self.C_ = self._choose_penalty(standardised, np.asarray(y), groups)
        coef, intercept, self.classes_ = _fit_softmax(standardised, y, self.C_)
        self.coef_ = coef / deviation
        self.intercept_ = intercept - self.coef_ @ mean
        return self

    def _choose_penalty(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
        images, first_view = np.unique(groups, return_index=True)
        if len(images) > MAX_IMAGES_TO_CHOOSE:
            rng = np.random.default_rng(self.seed)
            chosen = np.isin(groups, rng.choice(images, MAX_IMAGES_TO_CHOOSE, replace=False))
            return self._choose_penalty(x[chosen], y[chosen], groups[chosen])
        images_of_rarest = np.unique(y[first_view], return_counts=True)[1].min()
        num_folds = min(self.num_folds, int(images_of_rarest))
        if num_folds < 2:
            return PENALTIES[1]
        folds = StratifiedKFold(num_folds, shuffle=True, random_state=self.seed)
        losses = np.zeros((len(PENALTIES), len(y)))
        for _, held_out_images in folds.split(images, y[first_view]):
            held_out = np.isin(groups, images[held_out_images])
            train = ~held_out
            start = None
            for index, penalty in enumerate(PENALTIES):
                coef, intercept, classes = _fit_softmax(x[train], y[train], penalty, start)
                start = (coef, intercept)
                probabilities = _softmax(x[held_out] @ coef.T + intercept)
                column = np.searchsorted(classes, y[held_out])
                right = probabilities[np.arange(len(column)), column]
                losses[index, held_out] = -np.log(np.maximum(right, 1e-12))
        return PENALTIES[_strongest_within_one_error(losses[:, first_view])]

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Return the scores `(num_examples, num_classes)` before the softmax."""
        check_is_fitted(self)
        scores: np.ndarray = np.asarray(x, "float32") @ self.coef_.T + self.intercept_
        return scores

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities `(num_examples, num_classes)`."""
        return _softmax(self.decision_function(x))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return labels `(num_examples,)`."""
        labels: np.ndarray = self.classes_[self.decision_function(x).argmax(1)]
        return labels


def _strongest_within_one_error(losses: np.ndarray) -> int:
    """Return the first row whose mean is within a standard error of the least mean.

    Args:
        losses: `(num_penalties, num_images)`, the strongest penalty first.
    """
    means = losses.mean(1)
    best = int(means.argmin())
    error = losses[best].std() / np.sqrt(losses.shape[1])
    return int(np.argmax(means <= means[best] + error))


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


def _fit_softmax(
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
    coef, intercept = model.coef_, model.intercept_
    if len(coef) == 1:  # scikit-learn keeps one row for two classes: the difference of the scores
        coef = np.concatenate([-coef, coef]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    return coef, intercept, model.classes_
