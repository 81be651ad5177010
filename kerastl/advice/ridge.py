"""Ridge regression in closed form, with exact cross-validation.

Rows `x (n, d)` are standardised to `F`; classes become indicators `Y (n, C)`. The intercept is not
penalised: it enters the hat matrix as `1/n`, so that leaving rows out estimates it anew, and the
centring of `Y` by all rows leaks no label. What a held-out row does share in is the mean and
deviation of each feature, which know no labels, and the one penalty.
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped,unused-ignore]

# Penalties over the mean eigenvalue, four a decade: from next to no shrinking to next to all.
RELATIVE_PENALTIES = np.geomspace(1e-5, 1e4, 37)
# An eigendecomposition of this rank takes 1.9 CPU seconds (one of rank 1024: 0.3). Projecting 2048
# features to 1024 costs 6 to 14 points of accuracy when done at random, 1 to 6 when done onto 1024
# of the rows, so it is put off until here, and done onto rows.
MAX_RANK = 2048
BLOCK_ROWS = 4096
NUM_FOLDS = 5


class RidgeFit(NamedTuple):
    """Coefficients `(C, d)` and intercepts `(C,)` for raw features, float64.

    The penalty is on standardised features, against the sum of squared errors; `out_of_fold`
    `(n, C)` has the scores of each row under the fit without its fold.
    """

    coef: np.ndarray
    intercept: np.ndarray
    penalty: float
    out_of_fold: np.ndarray


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which matrix routines use one thread.

    The matrices here are so small that threads wait for one another more than they work: on two
    cores, an eigendecomposition of rank 1000 took 0.2 s with one thread and 2 to 17 s with two.
    """
    return _thread_pools().limit(limits=1, user_api="blas")


@functools.cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()  # looking for the loaded libraries takes 10 ms


def stratified_folds(
    y: np.ndarray, num_folds: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Deal examples out to folds, class by class.

    No two folds differ by more than one image in a class; a class with a single image is held out
    without having been seen.

    Args:
        y: `(num_examples,)` labels.
        num_folds: At least 2; no more than there are images are used.
        seed: Of the order of dealing.
        groups: `(num_examples,)`, equal for the views of one image, which stay together. Default:
            each example is an image.

    Returns:
        The fold of each example, `(num_examples,)` int64.
    """
    first, image = first_views(y, groups)
    labels = y[first]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.empty(len(first), "int64")
    folds[by_class] = np.arange(len(first)) % min(num_folds, len(first))
    return folds[image]


def first_views(y: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the first example of each image, and the image of each example."""
    if groups is None:
        return np.arange(len(y)), np.arange(len(y))
    _, first, image = np.unique(groups, return_index=True, return_inverse=True)
    return first, image


def gcv(system: "RowSystem | ColumnSystem", penalties: np.ndarray) -> np.ndarray:
    """Return the generalised cross-validation error at each penalty (Golub, Heath, Wahba, 1979)."""
    num_rows = len(system.indicators)
    kept = penalties[:, None] / (system.eigenvalues + penalties[:, None])
    freedom = 1 - ((1 - kept).sum(1) + 1) / num_rows
    energies = (system.coordinates**2).sum(1)  # of Y along each eigenvector
    beyond = max((system.indicators.std(0) ** 2).sum() * num_rows - energies.sum(), 0.0)
    return np.asarray((kept**2 @ energies + beyond) / num_rows / freedom**2)


def _eigen(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive eigenvalues `(rank,)` and their vectors `(size, rank)`."""
    eigenvalues, vectors = scipy.linalg.eigh(gram, driver="evd", check_finite=False)
    positive = eigenvalues > max(eigenvalues[-1], 0) * len(gram) * np.finfo("float64").eps
    return eigenvalues[positive], vectors[:, positive]


def _solve(positive: np.ndarray, right: np.ndarray) -> np.ndarray:
    factor = scipy.linalg.cho_factor(positive, overwrite_a=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, right, check_finite=False))


class RowSystem:
    """Ridge by the eigenvectors of `FF'`, for no more rows than features (and exact for more).

    With `FF' = U diag(w) U'`, `A = U'Y` and `s = w / (w + penalty)`, the fit is `U (s * A)` and the
    hat matrix `U diag(s) U' + 1/n`.

    Args:
        x: `(n, d)` float64, centred here.
        indicators: `(n, C)` bool.
        folds: `(n,)` int64.
    """

    def __init__(self, x: np.ndarray, indicators: np.ndarray, folds: np.ndarray):
        self.x = x - x.mean(0)
        self.indicators = indicators
        self.deal(folds)
        self.eigenvalues, self.basis = _eigen(self.x @ self.x.T)
        self.coordinates = self.basis.T @ (indicators - indicators.mean(0))

    def deal(self, folds: np.ndarray) -> None:
        """Take other folds."""
        self.folds = folds

    def weights(self, penalty: float) -> np.ndarray:
        """Return the weights `(d, C)`; the intercept is the mean of the indicators."""
        shrunk = self.coordinates / (self.eigenvalues + penalty)[:, None]
        return np.asarray(self.x.T @ (self.basis @ shrunk))

    def residuals(self, penalty: float) -> np.ndarray:
        """Return what the fit leaves of the indicators, `(n, C)`."""
        fitted = self.basis @ (self._shrinkage(penalty)[:, None] * self.coordinates)
        return self.indicators - self.indicators.mean(0) - fitted

    def out_of_fold(self, penalty: float) -> np.ndarray:
        """Return the scores of each row under the fit without its fold, `(n, C)`.

        The residuals of rows B without B are `(I - H_BB)^-1 R_B`: no refit.
        """
        residuals = self.residuals(penalty)
        half = self.basis * np.sqrt(self._shrinkage(penalty))
        for fold in np.unique(self.folds):
            rows = np.flatnonzero(self.folds == fold)
            others = np.eye(len(rows)) - half[rows] @ half[rows].T - 1 / len(self.x)
            residuals[rows] = _solve(others, residuals[rows])
        return self.indicators - residuals

    def _shrinkage(self, penalty: float) -> np.ndarray:
        return np.asarray(self.eigenvalues / (self.eigenvalues + penalty))


@dataclass(frozen=True)
class Features:
    """Rows of an array, standardised as they are read: the whole is never copied.

    Args:
        x: `(n, d)` of any float type, a memory map too.
        mean: `(d,)` float64.
        deviation: `(d,)` float64, 1 for a constant feature.
        projection: `(d, MAX_RANK)` float64 with orthonormal columns, or None.
    """

    x: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    projection: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and columns after the projection."""
        width = self.x.shape[1] if self.projection is None else self.projection.shape[1]
        return len(self.x), width

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        read = (np.asarray(self.x[rows], "float64") - self.mean) / self.deviation
        return read if self.projection is None else read @ self.projection

    def raw(self, weights: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `coef (C, d)` and `intercept (C,)` for raw features from weights for these."""
        if self.projection is not None:
            weights = self.projection @ weights
        coef = (weights / self.deviation[:, None]).T
        return coef, means - coef @ self.mean


def _blocks(num_rows: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, num_rows, BLOCK_ROWS)]


def standardised(x: np.ndarray) -> Features:
    """Return rows of zero mean and unit deviation; above `MAX_RANK` also projected.

    The projection is onto the span of `MAX_RANK` rows drawn at random: it sees no labels.
    """
    origin = np.asarray(x[:BLOCK_ROWS], "float64").mean(0)
    total, squares = np.zeros_like(origin), np.zeros_like(origin)
    for block in _blocks(len(x)):
        shifted = np.asarray(x[block], "float64") - origin
        total += shifted.sum(0)
        squares += np.einsum("nd,nd->d", shifted, shifted)
    mean = origin + total / len(x)
    deviation = np.sqrt(np.maximum(squares / len(x) - (total / len(x)) ** 2, 0))
    deviation = np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0)
    features = Features(x, mean, deviation)
    if min(x.shape) <= MAX_RANK:
        return features
    drawn = np.random.default_rng(0).choice(len(x), MAX_RANK, replace=False)
    projection = np.linalg.qr(features[np.sort(drawn)].T)[0]
    return Features(x, mean, deviation, projection)


class ColumnSystem:
    """Ridge by the normal equations of each fold, for more rows than features, of any number.

    Rows are read in blocks, and only the sums `Z'Z` and `Z'Y` with `Z = [F 1]` are kept. The fit
    without a fold comes from the sums less its own.

    Args:
        features: `(n, d)`.
        indicators: `(n, C)` bool.
        folds: `(n,)` int64 from 0.
    """

    def __init__(self, features: Features, indicators: np.ndarray, folds: np.ndarray):
        self.features, self.indicators = features, indicators
        self.deal(folds)
        self.gram, self.moment = self.grams.sum(0), self.moments.sum(0)
        self.eigenvalues, self.basis = _eigen(self.gram[:-1, :-1])
        projected = self.basis.T @ self.moment[:-1]
        self.coordinates = projected / np.sqrt(self.eigenvalues)[:, None]

    def deal(self, folds: np.ndarray) -> None:
        """Take other folds: the rows are read again, nothing is decomposed again."""
        num_folds, width = int(folds.max()) + 1, self.features.shape[1] + 1
        self.folds = folds
        self.grams = np.zeros((num_folds, width, width))
        self.moments = np.zeros((num_folds, width, self.indicators.shape[1]))
        for z, rows, fold in self._parts():
            self.grams[fold] += z.T @ z
            self.moments[fold] += z.T @ self.indicators[rows]

    def weights(self, penalty: float) -> np.ndarray:
        """Return the weights `(d, C)`; the intercept is the mean of the indicators."""
        shrinkage = np.sqrt(self.eigenvalues) / (self.eigenvalues + penalty)
        return np.asarray(self.basis @ (shrinkage[:, None] * self.coordinates))

    def out_of_fold(self, penalty: float) -> np.ndarray:
        """Return the scores of each row under the fit without its fold, `(n, C)`."""
        ridge = np.diag(np.append(np.full(len(self.gram) - 1, penalty), 0.0))
        fits = [
            _solve(self.gram - gram + ridge, self.moment - moment)
            for gram, moment in zip(self.grams, self.moments, strict=True)
        ]
        scores = np.empty(self.indicators.shape)
        for z, rows, fold in self._parts():
            scores[rows] = z @ fits[fold]
        return scores

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Yield `Z (m, d + 1)`, the rows `(m,)` it holds and their fold."""
        for block in _blocks(len(self.folds)):
            read = self.features[block]
            z = np.concatenate([read, np.ones((len(read), 1))], axis=1)
            for fold in range(len(self.grams)):
                within = np.flatnonzero(self.folds[block] == fold)
                yield z[within], block.start + within, fold


def system_of(x: Features, indicators: np.ndarray, folds: np.ndarray) -> RowSystem | ColumnSystem:
    """Return the system that is the smaller one."""
    if x.shape[0] > x.shape[1]:
        return ColumnSystem(x, indicators, folds)
    return RowSystem(x[:], indicators, folds)


def choose_penalty(system: RowSystem | ColumnSystem, grouped: bool) -> float:
    """Return the penalty of least GCV error, raised where images have several views.

    GCV takes views of one image for images of their own, which makes shrinking look less useful
    than it is: from its choice upwards, by half decades, while the error over folds falls.
    """
    scale = system.eigenvalues.mean() if len(system.eigenvalues) else 1.0
    penalties = RELATIVE_PENALTIES * scale
    index = int(gcv(system, penalties).argmin())
    least = np.inf
    while grouped and index + 2 < len(penalties):
        error = ((system.indicators - system.out_of_fold(penalties[index])) ** 2).sum()
        if error >= least:
            return float(penalties[index - 2])
        least, index = error, index + 2
    return float(penalties[index])


def fit_ridge(
    x: np.ndarray, columns: np.ndarray, folds: np.ndarray, *, grouped: bool = False
) -> RidgeFit:
    """Fit ridge regression and score each row without its fold.

    Args:
        x: `(n, d)` of any float type, a memory map too.
        columns: `(n,)` int64, the class of each row, from 0; or `(n, C)`, numbers to fit.
        folds: `(n,)` int64 from 0, as `stratified_folds` deals them.
        grouped: Whether some rows are views of one image. Default False.
    """
    features, indicators = standardised(x), indicators_of(columns)
    system = system_of(features, indicators, folds)
    penalty = choose_penalty(system, grouped)
    coef, intercept = features.raw(system.weights(penalty), indicators.mean(0))
    return RidgeFit(coef, intercept, penalty, system.out_of_fold(penalty))


def indicators_of(columns: np.ndarray) -> np.ndarray:
    """Return the indicators `(n, C)` of classes `(n,)`; targets `(n, C)` as they are."""
    return columns if columns.ndim == 2 else np.eye(columns.max() + 1, dtype=bool)[columns]
