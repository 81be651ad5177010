"""Scores of features and of source probabilities against labels, as plain arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar, nnls

from kerastl.advice.ridge import one_blas_thread
from kerastl.errors import ArgumentError

# How many images' worth of label frequencies every source class starts with. On five sets of images
# with their labels shuffled the mean share was below 0 for 0.03 to 1, at 20 to 400 images; with
# their own labels 1 lost up to a third of what 0.1 saw, and 0.03 saw little more.
PRIOR_IMAGES = 0.1
NUM_BOOTSTRAPS = 400
INTERVAL = (5.0, 95.0)
_ROWS_AT_A_TIME = 2048
# Between these ratios of the variance of the noise to that of the weights (times the largest
# eigenvalue) lies "the features say all" and "they say nothing".
_LOG_RATIOS = np.linspace(np.log(1e-8), np.log(1e8), 65)


@dataclass(frozen=True)
class SourceSkill:
    """What the probabilities of source classes tell about the labels.

    Args:
        log_probability: Mean log probability (in nats) of an image's label, the image left out.
        explained: Share of the entropy of the labels that this explains: 1 when all is known, 0
            (or below) when nothing is. 0 where there is one class alone.
    """

    log_probability: float
    explained: float


def leave_one_out_leep(
    theta: np.ndarray, labels: np.ndarray, *, prior_images: float = PRIOR_IMAGES
) -> SourceSkill:
    """Return how well source classes predict labels, with no image judged by itself.

    The empirical predictor of LEEP (Nguyen 2020, https://arxiv.org/abs/2002.12462) sums
    p(y | z) theta_iz over the source classes z. As published p(y | z) is counted over the image
    itself too, which on pure noise seems to explain most of the labels when images are few. Here
    image i is left out of the counts: with J_yz = sum of theta_iz over the images of class y,
    M_z = sum_y J_yz and pi(y) the frequency of y,

    p_i(y_i | z) = (J_(y_i)z - theta_iz + a pi(y_i)) / (M_z - theta_iz + a).

    `a`, in images, says how much a source class must have seen before it has a say. A source class
    without one falls back on the frequencies, which explain nothing of the entropy.

    Args:
        theta: Source probabilities `(n, num_source_classes)`, rows that sum to 1.
        labels: Ints `(n,)`, at least 2.
        prior_images: `a`, above 0. Default 0.1.

    Returns:
        A `SourceSkill`.
    """
    theta = np.asarray(theta)
    classes, members = np.unique(labels, return_inverse=True)
    if len(theta) != len(members) or len(members) < 2:
        raise ArgumentError(
            "`theta` must have a row for each of at least 2 labels. Received: theta of shape "
            f"{theta.shape}, {len(members)} labels."
        )
    counts = np.bincount(members)
    joint = np.stack([theta[members == c].sum(0, dtype=np.float64) for c in range(len(classes))])
    mass = joint.sum(0)
    frequencies = counts / len(members)
    logs = np.empty(len(members))
    for start in range(0, len(members), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        own, label = theta[rows].astype(np.float64), members[rows]
        seen = np.maximum(joint[label] - own, 0) + prior_images * frequencies[label, None]
        given = seen / (np.maximum(mass - own, 0) + prior_images)
        logs[rows] = np.log((own * given).sum(1))
    entropy = _entropy(counts)
    mean = float(logs.mean())
    return SourceSkill(mean, 1 + mean / entropy if entropy > 0 else 0.0)


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def shrinkage_h_score(x: np.ndarray, labels: np.ndarray) -> float:
    """Return the distance between classes in features, relative to the spread of all images.

    trace(S_a^-1 (1 - a) B) with B the covariance of the class means and S_a = (1 - a) S + a s I the
    covariance of the features shrunk as Ledoit and Wolf (2004) do (Ibrahim 2021,
    https://arxiv.org/abs/2110.06893). Without shrinkage it is the number of classes minus 1 for any
    features of more dimensions than images.

    Args:
        x: Features `(n, dim)`.
        labels: Ints `(n,)`.

    Returns:
        From 0 to the number of classes minus 1; more is better.
    """
    centred = _centred(x)
    _, members = np.unique(labels, return_inverse=True)
    with one_blas_thread():
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    eigenvalues = sizes**2 / len(centred)
    spread = eigenvalues.sum() / centred.shape[1]
    if spread == 0:
        return 0.0
    shrinkage = _ledoit_wolf(centred, eigenvalues)
    counts = np.bincount(members)
    # Row k, column c: the class mean along the k-th direction, times count / size of direction.
    along = np.stack([left[members == c].sum(0) for c in range(len(counts))], axis=1)
    weights = eigenvalues / ((1 - shrinkage) * eigenvalues + shrinkage * spread + 1e-300)
    return float((1 - shrinkage) * (weights[:, None] * along**2 / counts).sum())


def _ledoit_wolf(centred: np.ndarray, eigenvalues: np.ndarray) -> float:
    """Return the share of the spherical part in the shrunk covariance, 0 to 1.

    Args:
        centred: Features `(n, dim)` of zero mean.
        eigenvalues: Those of their covariance, `(min(n, dim),)`.
    """
    n, dim = centred.shape
    squared = (eigenvalues**2).sum()
    distance = squared - eigenvalues.sum() ** 2 / dim
    noise = (((centred**2).sum(1) ** 2).sum() / n - squared) / n
    return float(np.clip(noise / distance, 0, 1)) if distance > 1e-12 * squared else 1.0


def log_evidence(x: np.ndarray, labels: np.ndarray) -> float:
    """Return LogME: the evidence of a linear model with Gaussian weights, mean over the targets.

    Each column y of the targets (of classes, of their one-hot labels) is taken as
    N(0, (I + x x' / t) / beta), and the density is maximised over beta (in closed form) and t. This
    is the evidence of You 2021 (https://arxiv.org/abs/2102.11005) in full; the authors' code leaves
    out -1/2 (dim - n) log alpha when images are fewer than dimensions, which makes any features of
    many dimensions look good.

    Args:
        x: Features `(n, dim)`, taken as they are: no intercept, as in the paper.
        labels: Ints `(n,)`, or targets `(n, num_targets)`.

    Returns:
        The log density divided by `n`; more is better. It compares features of the same images.
    """
    x = np.asarray(x, np.float64)
    one_hot = np.asarray(labels, np.float64)
    if labels.ndim == 1:
        classes, members = np.unique(labels, return_inverse=True)
        one_hot = np.eye(len(classes))[members]
    with one_blas_thread():
        left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    squares = (left.T @ one_hot) ** 2
    rests = np.maximum((one_hot**2).sum(0) - squares.sum(0), 0)
    columns = zip(squares.T, rests, strict=True)
    return float(np.mean([_largest_evidence(sizes**2, s, rest, len(x)) for s, rest in columns]))


def _largest_evidence(eigenvalues: np.ndarray, squares: np.ndarray, rest: float, n: int) -> float:
    """Return the largest log density per image over t.

    Args:
        eigenvalues: Those of x x', `(r,)`.
        squares: Squared coordinates of the labels along its eigenvectors, `(r,)`.
        rest: Squared length of the labels outside of them.
        n: How many images there are.
    """
    scaled = eigenvalues / max(eigenvalues.max(initial=0), 1e-300)

    def negative(log_ratio: float) -> float:
        ratio = np.exp(log_ratio)
        residual = (squares * ratio / (scaled + ratio)).sum() + rest
        beta = n / max(residual, 1e-12 * n)
        determinant = np.log1p(scaled / ratio).sum()
        return float(-0.5 * (np.log(beta / (2 * np.pi)) - 1 - determinant / n))

    best = int(np.argmin([negative(ratio) for ratio in _LOG_RATIOS]))
    low, high = _LOG_RATIOS[max(best - 1, 0)], _LOG_RATIOS[min(best + 1, len(_LOG_RATIOS) - 1)]
    found = minimize_scalar(negative, bounds=(low, high), method="bounded")
    return -min(float(found.fun), negative(_LOG_RATIOS[best]))


def _centred(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    centred: np.ndarray = x - x.mean(0)
    return centred


@dataclass(frozen=True)
class Prediction:
    """An error that is expected at a number of images, and an interval of 90 % of the draws."""

    num_images: int
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """The error as a function of the number of images, e(m) = a + b m^(-1/2).

    Args:
        a: What no number of images takes away, at least 0.
        b: How steeply it falls, at least 0.
        num_images: The largest size seen, n.
        doubled: What is expected at 2n.
        quadrupled: What is expected at 4n.
    """

    a: float
    b: float
    num_images: int
    doubled: Prediction
    quadrupled: Prediction

    def error(self, num_images: int) -> float:
        """Return the error at a number of images."""
        return self.a + self.b / float(np.sqrt(num_images))


def fit_learning_curve(
    sizes: Sequence[int], errors: Sequence[np.ndarray], *, seed: int = 0
) -> LearningCurve:
    """Fit e(m) = a + b m^(-1/2) with a, b >= 0 to errors at several sizes.

    Least squares, each size weighed by its number of draws times its size, since the variance of
    an error falls with both. The intervals come from drawing the draws again within each size
    (Efron's bootstrap): they show the luck of the draw, but neither that draws share images nor
    that the curve may have another form.

    Args:
        sizes: Numbers of images, at least 2 different ones.
        errors: For each size the errors of its draws, 0 to 1.
        seed: Decides the bootstrap.

    Returns:
        A `LearningCurve`.
    """
    draws = [np.atleast_1d(np.asarray(e, np.float64)) for e in errors]
    if len(sizes) != len(draws) or len(set(sizes)) < 2 or not all(len(e) for e in draws):
        raise ArgumentError(
            "`sizes` must be at least 2 different numbers of images, with draws for each in "
            f"`errors`. Received: sizes={list(sizes)}, draws={[len(e) for e in draws]}."
        )
    m = np.asarray(sizes, np.float64)
    weights = np.sqrt(m * [len(e) for e in draws])
    design = weights[:, None] * np.stack([np.ones_like(m), m**-0.5], axis=1)

    def fit(samples: Sequence[np.ndarray]) -> np.ndarray:
        coefficients: np.ndarray = nnls(design, weights * [e.mean() for e in samples])[0]
        return coefficients

    rng = np.random.default_rng(seed)
    again = np.stack([fit([rng.choice(e, len(e)) for e in draws]) for _ in range(NUM_BOOTSTRAPS)])
    a, b = fit(draws)
    n = int(max(sizes))
    doubled, quadrupled = (_predict(factor * n, (a, b), again) for factor in (2, 4))
    return LearningCurve(float(a), float(b), n, doubled, quadrupled)


def _predict(num_images: int, fitted: tuple[float, float], again: np.ndarray) -> Prediction:
    term = np.array([1, num_images**-0.5])
    low, high = np.percentile(again @ term, INTERVAL)
    error = float(np.asarray(fitted) @ term)
    return Prediction(num_images, error, min(float(low), error), max(float(high), error))


@dataclass(frozen=True)
class StageChoice:
    """The deepest stage that is as good as the best one, as far as the images can tell.

    Args:
        stage: Its number.
        best: Number of the stage of the highest score, the deepest of several.
        scores: `(num_stages,)`.
        standard_errors: `(num_stages,)`, of the difference of each stage to the best.
    """

    stage: int
    best: int
    scores: np.ndarray
    standard_errors: np.ndarray


def one_standard_error_stage(image_scores: np.ndarray) -> StageChoice:
    """Return the deepest stage whose deficit to the best is below one standard error.

    The same images are judged at each stage, so the standard error is that of the mean of the
    differences image by image, which is less than that of two independent scores.

    Args:
        image_scores: `(num_stages, n)`, of each image held out; of classes whether it was right.
    """
    values = np.asarray(image_scores, np.float64)
    scores = values.mean(1)
    best = len(scores) - 1 - int(np.argmax(scores[::-1]))
    differences = values[best] - values
    errors = differences.std(1) / np.sqrt(max(values.shape[1] - 1, 1))
    deficits = differences.mean(1)
    good = (deficits < errors) | (deficits <= 0)
    return StageChoice(int(np.flatnonzero(good)[-1]), best, scores, errors)
