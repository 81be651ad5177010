"""The classifier that starts a head: logistic regression and LDA, weighed by what they miss."""

from typing import Self

import numpy as np
import scipy.linalg
from scipy.optimize import minimize
from scipy.special import log_softmax

from kerastl.advice.probe import (
    Rows,
    SoftmaxProbe,
    fit_softmax,
    penalty_path,
    rows_to_choose_by,
    standardised_rows,
    views_of,
)
from kerastl.advice.ridge import one_blas_thread


class BlendProbe(SoftmaxProbe):
    """A weighted sum of two linear classifiers: logistic regression and LDA.

    `SoftmaxProbe` is better with many images. Linear discriminant analysis is better with few
    images; its covariance is shrunk towards a multiple of the identity (OAS: Chen and others, 2010,
    Shrinkage Algorithms for MMSE Covariance Estimation). The non-negative weights minimise the log
    loss over stratified folds. The targets are smoothed as in Platt (1999), because otherwise the
    weights become infinite if all of a few images are classified correctly. The sum is a linear map
    too, and its softmax is calibrated.

    Args:
        num_folds: at least 2. Default 3.
        seed: random seed of the folds.

    Attributes:
        classes_: `(num_classes,)`.
        coef_: `(num_classes, dim)` for raw features.
        intercept_: `(num_classes,)`.
        C_: the inverse penalty of the logistic regression.
        shrinkage_: shrinkage of the covariance, 0 to 1; None if LDA is not used.
        weights_: the weights of the logistic regression and of LDA.

    Example:
        >>> embeddings = kerastl.extract_embeddings(model, data.train)
        >>> probe = kerastl.BlendProbe().fit(embeddings.x, embeddings.y)
        >>> probe.score(*kerastl.extract_embeddings(model, data.test))
    """

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Fit to features `(num_examples, dim)` and labels `(num_examples,)`.

        `groups` `(num_examples,)` keeps the views of an image in the same fold.
        """
        x, y = self._validated(x, y, groups)
        self.classes_, columns = np.unique(y, return_inverse=True)
        standard = standardised_rows(x)
        with one_blas_thread():
            rows = rows_to_choose_by(standard.x, y, groups, self.num_folds, self.seed)
            path = penalty_path(rows, self.classes_, views_of(y, groups))
            self.C_ = path.penalty
            coef, intercept, _ = fit_softmax(standard.x, y, path.penalty, path.start)
            self.weights_, self.shrinkage_ = (1.0, 0.0), None
            held_out = _lda_out_of_fold(rows)
            lda = None if held_out is None else fit_lda(standard.x, columns)
            if held_out is not None and lda is not None:
                labels = np.unique(rows[1], return_inverse=True)[1]
                self.weights_ = first, second = _stacking_weights(
                    path.out_of_fold, held_out, labels
                )
                coef = first * coef + second * lda[0]
                intercept = first * intercept + second * lda[1]
                self.shrinkage_ = lda[2]
        self.coef_, self.intercept_ = standard.raw(coef, intercept)
        return self


def fit_lda(x: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return `coef (C, d)`, `intercept (C,)` and shrinkage of linear discriminant analysis.

    Of fewer examples than features the covariance is never formed (Woodbury's identity). None
    where examples of a class do not differ.

    Args:
        x: `(n, d)` features of like scale.
        columns: `(n,)` the class of each, from 0, none left out.
    """
    num_rows, dim = x.shape
    counts = np.bincount(columns)
    means = np.zeros((len(counts), dim))
    np.add.at(means, columns, x)
    means /= counts[:, None]
    within = x - means[columns]
    gram = (within @ within.T if num_rows < dim else within.T @ within) / num_rows
    scale, square = float(np.trace(gram)) / dim, float((gram**2).mean()) * len(gram) ** 2 / dim**2
    if scale < 1e-12:
        return None
    spread = (num_rows + 1) * (square - scale**2 / dim)
    shrinkage = min((square + scale**2) / spread, 1.0) if spread > 0 else 1.0
    centred = means - means.mean(0)
    system = (1 - shrinkage) * gram
    system[np.diag_indices(len(system))] += shrinkage * scale
    factor = scipy.linalg.cho_factor(system, overwrite_a=True, check_finite=False)
    if num_rows < dim:
        solved = scipy.linalg.cho_solve(factor, within @ centred.T, check_finite=False)
        inside = (1 - shrinkage) / num_rows * (within.T @ solved).T
        coef = (centred - inside) / (shrinkage * scale)
    else:
        coef = scipy.linalg.cho_solve(factor, centred.T, check_finite=False).T
    middle = means.mean(0)
    intercept = np.log(counts / num_rows) - 0.5 * (coef * centred).sum(1) - coef @ middle
    return coef, intercept, shrinkage


def _lda_out_of_fold(rows: Rows) -> np.ndarray | None:
    """Return the scores of each row under the fit without its fold; None where one has no fit."""
    x, labels, folds = rows
    columns = np.unique(labels, return_inverse=True)[1]
    scores = np.zeros((len(labels), int(columns.max(initial=0)) + 1))
    for fold in np.unique(folds):
        held_out = folds == fold
        fit = fit_lda(x[~held_out], columns[~held_out])
        if fit is None:
            return None
        scores[held_out] = x[held_out] @ fit[0].T + fit[1]
    return scores if scores.shape[1] > 1 else None


def _stacking_weights(
    first: np.ndarray, second: np.ndarray, columns: np.ndarray
) -> tuple[float, float]:
    """Return the weights, not negative, of two scores whose sum has the least log loss.

    Args:
        first: `(n, C)`, out of fold.
        second: the same of another classifier.
        columns: `(n,)` the class of each, from 0.
    """
    num_rows, num_classes = first.shape
    aside = 1 / (num_rows + 2)  # Platt's share of the classes that a label does not name
    targets = np.full(first.shape, aside / (num_classes - 1))
    targets[np.arange(num_rows), columns] = 1 - aside
    # Centred, as a softmax sees them, and of a like scale, for the solver's sake.
    scores = np.stack([first, second])
    scores -= scores.mean(-1, keepdims=True)
    scales = np.maximum(scores.std(axis=(1, 2)), 1e-12)
    scores /= scales[:, None, None]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, scores, 1), axis=1)
        slope = (np.exp(logs) - targets) / num_rows
        return -float((targets * logs).sum() / num_rows), np.tensordot(scores, slope, 2)

    found = minimize(loss, [1.0, 1.0], jac=True, bounds=[(0, None)] * 2, method="L-BFGS-B")
    a, b = found.x / scales
    return float(a), float(b)
