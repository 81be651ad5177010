"""Linear heads on embeddings in one go, for several labels an image and for numbers."""

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV

from kerastl.advice.probe import SoftmaxProbe
from kerastl.advice.ridge import first_views, one_blas_thread

RIDGE_PENALTIES = tuple(np.logspace(-1, 5, 13))
"""On standardised features: from next to nothing to more than any embedding has examples for."""

MAX_IMAGES_TO_CHOOSE = 4000
"""The penalty is chosen on so many images: more would cost minutes and decide the same."""

Head = tuple[np.ndarray, np.ndarray]


def fit_labels(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> Head:
    """Fit a `SoftmaxProbe` of two classes to each label, one against the rest.

    Args:
        x: embeddings `(num_examples, dim)`.
        y: 0 and 1 `(num_examples, num_labels)`.
        groups: `(num_examples,)`, the image of each example.
        seed: of the folds.

    Returns:
        `kernel` `(dim, num_labels)` and `bias` `(num_labels,)`, float32, of a sigmoid. A label
        that all examples have, or none, gets a bias alone: the log-odds of its share, with half
        an image added to either side.
    """
    kernel = np.zeros((x.shape[1], y.shape[1]), "float32")
    bias = np.zeros(y.shape[1], "float32")
    for label, column in enumerate(y.T.astype("int64")):
        count = int(column.sum())
        if count in (0, len(column)):
            bias[label] = np.log((count + 0.5) / (len(column) - count + 0.5))
            continue
        probe = SoftmaxProbe(seed=seed).fit(x, column, groups)
        kernel[:, label] = probe.coef_[1] - probe.coef_[0]
        bias[label] = probe.intercept_[1] - probe.intercept_[0]
    return kernel, bias


def fit_values(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> Head:
    """Fit ridge regression to each target, its penalty chosen by leaving one image out.

    scikit-learn's `RidgeCV` over features of zero mean and unit deviation, on one view of at most
    `MAX_IMAGES_TO_CHOOSE` images; each image is weighed as all its views. A feature that varies
    less than half of them do is divided by their median deviation: most units that a network hardly
    ever uses are nearly constant, and one image that does use one would be answered far beyond all
    targets (the angle of 520 photographs of hands, 680 to learn from: R2 0.33 without, 0.62 with).

    Args:
        x: embeddings `(num_examples, dim)`.
        y: numbers `(num_examples, num_targets)`.
        groups: `(num_examples,)`, the image of each example.
        seed: of the draw of images to choose by.

    Returns:
        `kernel` `(dim, num_targets)` and `bias` `(num_targets,)`, float32.
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
