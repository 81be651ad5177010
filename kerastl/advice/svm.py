"""A linear support vector machine on embeddings."""

import warnings
from typing import Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from kerastl.advice.probe import (
    LinearClassifier,
    row_a_class,
    rows_to_choose_by,
    standardised_rows,
)
from kerastl.advice.ridge import first_views, one_blas_thread

# LIBLINEAR's C times the squared length of an example, which is `dim` when standardised.
MARGIN_PENALTIES = (0.1, 1.0, 10.0)


class LinearSVM(LinearClassifier):
    """A linear support vector machine (one versus rest), with a cross-validated penalty.

    Uses scikit-learn's `LinearSVC` (LIBLINEAR's dual solver, squared hinge) on features with zero
    mean and unit variance. `C` times `dim` increases through `MARGIN_PENALTIES` as long as the
    held-out error falls by more than one standard error, because a weak penalty takes the most time
    and is rarely better. The penalty is chosen on the same images as in `SoftmaxProbe`. The scores
    are margins, not log-probabilities.

    Args:
        num_folds: at least 2. Default 3.
        seed: random seed of the folds and of the solver.

    Attributes:
        classes_: `(num_classes,)`.
        coef_: `(num_classes, dim)` for raw features; with two classes the rows are opposite halves.
        intercept_: `(num_classes,)`.
        C_: the inverse penalty chosen.
    """

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Fit to features `(num_examples, dim)` and labels `(num_examples,)`.

        `groups` `(num_examples,)` keeps the views of an image in the same fold.
        """
        x, y = self._validated(x, y, groups)
        standard = standardised_rows(x)
        with one_blas_thread():
            self.C_ = self._choose_penalty(standard.x, y, groups)
            coef, intercept, self.classes_ = _fit_margin(standard.x, y, self.C_, self.seed)
        self.coef_, self.intercept_ = standard.raw(coef, intercept)
        return self

    def _choose_penalty(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> float:
        x, labels, folds = rows_to_choose_by(x, y, groups, self.num_folds, self.seed)
        best, fewest = MARGIN_PENALTIES[0] / x.shape[1], np.inf
        if len(np.unique(labels)) < 2:
            return best
        views = len(y) / len(first_views(y, groups)[0])
        for penalty in np.array(MARGIN_PENALTIES) / x.shape[1]:
            wrong = 0
            for fold in range(int(folds.max()) + 1):
                held_out = folds == fold
                train = x[~held_out], labels[~held_out]
                coef, intercept, classes = _fit_margin(*train, penalty * views, self.seed)
                answers = classes[(x[held_out] @ coef.T + intercept).argmax(1)]
                wrong += int((answers != labels[held_out]).sum())
            if wrong + np.sqrt(wrong) >= fewest:
                break
            best, fewest = float(penalty), wrong
        return best


def _fit_margin(
    x: np.ndarray, y: np.ndarray, penalty: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `(coef, intercept, classes)`, one row a class also for two classes."""
    # To 1e-4, the default, took up to twice the time and moved no accuracy by more than 0.001.
    model = LinearSVC(C=penalty, dual=True, tol=1e-2, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the folds judge the result
        model.fit(x, y)
    return *row_a_class(model.coef_, model.intercept_), model.classes_
