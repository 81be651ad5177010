"""A linear probe for any task: ridge regression on its labels, with the score of the task."""

from typing import NamedTuple

import numpy as np
from sklearn.utils import check_array

from kerastl._task import Task
from kerastl.advice.learning_curve import FRACTIONS, learning_curve
from kerastl.advice.ridge import NUM_FOLDS, fit_ridge, one_blas_thread, stratified_folds
from kerastl.advice.scores import LearningCurve, fit_learning_curve

LEAST_DRAWN = 20
"""The least number of images that say how well several labels, or numbers, are read."""


class ProbeLabels(NamedTuple):
    """Labels as a probe learns them."""

    task: Task
    labels: np.ndarray  # of one view of each image, as `Split` has them

    @property
    def targets(self) -> np.ndarray:
        """Class indicators, 0 and 1, or numbers in deviations from their mean, `(n, C)`."""
        if self.task.has_one_class:
            return np.eye(self.labels.max() + 1, dtype=bool)[self.labels]
        mean, deviation = self._scale
        return (self.labels.astype("float64") - mean) / deviation

    def image_scores(self, rows: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return those of the task, of some images and what the probe answers about them."""
        mean, deviation = self._scale
        return self.task.image_scores(self.labels[rows], outputs * deviation + mean)

    @property
    def _scale(self) -> tuple[np.ndarray | float, np.ndarray | float]:
        return self.task.target_scale(self.labels) or (0.0, 1.0)


def probe_scores(
    task: Task, x: np.ndarray, labels: np.ndarray, *, seed: int = 0, num_folds: int = NUM_FOLDS
) -> np.ndarray:
    """Return the score of each image under a ridge regression that has not seen its fold.

    Equal labels and seeds have equal folds, so that probes on several features can be compared
    image by image.

    Args:
        task: of the labels.
        x: features `(n, dim)`.
        labels: as `Split` has them.
        seed: of the folds.
        num_folds: at least 2.

    Returns:
        `(n,)`; the mean is the task's score.
    """
    of_probe = ProbeLabels(task, labels)
    folds = stratified_folds(task.stratification_groups(labels), num_folds, seed)
    with one_blas_thread():
        fit = fit_ridge(check_array(x), of_probe.targets, folds)
    return of_probe.image_scores(np.arange(len(labels)), fit.out_of_fold)


def probe_curve(
    task: Task, x: np.ndarray, labels: np.ndarray, *, seed: int
) -> LearningCurve | None:
    """Return how 1 minus the score of a probe falls with the images; None for too few of them."""
    of_probe = ProbeLabels(task, labels)

    def error(rows: np.ndarray, outputs: np.ndarray) -> float:
        return 1 - float(of_probe.image_scores(rows, outputs).mean())

    strata, shares = labels, FRACTIONS
    if not task.has_one_class:
        strata = np.zeros(len(labels), "int64")
        shares = tuple(share for share in FRACTIONS if share * len(labels) >= LEAST_DRAWN)
    errors = learning_curve(
        x, strata, targets=of_probe.targets, error=error, fractions=shares, seed=seed
    )
    if len(errors) < 2:
        return None
    return fit_learning_curve(list(errors), [np.array(rates) for rates in errors.values()])
