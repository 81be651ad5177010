"""Decides whether the result of a phase is kept, and with which weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of the images that are wrong before a phase, the share that it mends: mean and deviation of what
# is expected before any validation image is looked at. On the open sets it was 0 to 80 %.
MENDED, MENDED_DEVIATION = 0.15, 0.3
LEAST_DEVIATION = 0.01  # of the accuracy: what is hardly ever wrong can still be spoilt
# Of the way from the weights before a phase to those after it. Between them accuracy is kept and
# the answers are less oversure (https://arxiv.org/abs/2109.01903).
SHARES = (0.5, 0.75, 1.0)
DRAWS = 200  # of the images, with replacement


@dataclass(frozen=True)
class Decision:
    """What became of the weights that a phase learnt.

    Args:
        share: of the way from the weights before to those learnt, 0 to 1; 0 where the phase is
            not kept.
        before: the objective on the validation images before.
        after: that of the weights learnt.
        gain: what is expected of new images, given both and what such phases usually bring.
        num_images: validation images.
        is_sound: whether the log loss did not rise by more than a standard error.
        objective: what is compared, as a `Recipe` has it.
    """

    share: float
    before: float
    after: float
    gain: float
    num_images: int
    is_sound: bool
    objective: str = "accuracy"

    def text(self, phase: str) -> str:
        """Return it as a sentence or two."""
        goal = self.objective.replace("_", " ")
        result = (
            f"Validation {goal} {self.after:.3f}, before {self.before:.3f} "
            f"({self.num_images:,} images); expected gain on new images "
            f"{100 * self.gain:+.1f} points"
        )
        if not self.is_sound:
            result += ", but the log loss rose by more than one standard error"
        if not self.share:
            return f"{phase}: not kept. {result}. The earlier model is used."
        way = "" if self.share == 1 else f", {self.share:.0%} of the way from the earlier weights"
        return f"{phase}: kept{way}. {result}."


def expected_gain(
    before: np.ndarray, after: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the accuracy that new images are expected to gain.

    What the validation images say, image by image, and what such phases usually bring, each weighed
    by how sure it is: a normal prior and the normal approximation to McNemar's test. With few
    images the prior tells more; with many, they do.

    Args:
        before: `(num_images,)` bool, whether the answer was right before.
        after: the same of the weights learnt.
        weights: `(num_images,)`, by what each image counts. Default: 1.
    """
    num_images = len(before)
    counted = np.ones(num_images) if weights is None else weights * num_images / weights.sum()
    wrong = (counted @ ~before + 1) / (num_images + 2)  # Laplace's estimate
    usual, usual_variance = MENDED * wrong, max(MENDED_DEVIATION * wrong, LEAST_DEVIATION) ** 2
    changes = counted * (after.astype(int) - before.astype(int))
    seen, variance = changes.sum() / num_images, ((changes**2).sum() + 1) / num_images**2
    return float((seen * usual_variance + usual * variance) / (usual_variance + variance))


def measure(
    objective: str, labels: np.ndarray, answers: np.ndarray, counted: np.ndarray | None = None
) -> Any:
    """Return the accuracy, its mean over classes (recall) or the mean F1 of classes.

    Classes without an image are left out.

    Args:
        objective: of `OBJECTIVES`.
        labels: `(num_images,)`.
        answers: `(num_images,)`.
        counted: `(..., num_images)`, how often each image counts. Default: once.
    """
    counted = np.ones(len(labels)) if counted is None else np.asarray(counted, float)
    if objective == "accuracy":
        return counted @ (answers == labels) / counted.sum(-1)
    classes = np.arange(1 + max(labels.max(), answers.max()))
    is_class, is_answer = labels[:, None] == classes, answers[:, None] == classes
    right, own = counted @ (is_class & is_answer), counted @ is_class
    among = own if objective == "balanced_accuracy" else (own + counted @ is_answer) / 2
    shares = np.divide(right, among, out=np.zeros_like(own), where=among > 0)
    return (shares * (own > 0)).sum(-1) / np.maximum((own > 0).sum(-1), 1)


def expected_gain_by(
    objective: str, labels: np.ndarray, before: np.ndarray, after: np.ndarray
) -> float:
    """Return what an objective that is no mean over images is expected to gain on new images.

    As `expected_gain`, with the variance of draws of the images with replacement.

    Args:
        objective: of `OBJECTIVES`.
        labels: `(num_images,)`.
        before: `(num_images,)`, the answers before.
        after: the same of the weights learnt.
    """
    num_images = len(labels)
    draws = np.random.default_rng(0).multinomial(num_images, [1 / num_images] * num_images, DRAWS)
    was, now = (measure(objective, labels, answers) for answers in (before, after))
    gains = [measure(objective, labels, answers, draws) for answers in (after, before)]
    wrong = ((1 - was) * num_images + 1) / (num_images + 2)
    usual, usual_variance = MENDED * wrong, max(MENDED_DEVIATION * wrong, LEAST_DEVIATION) ** 2
    variance = np.var(gains[0] - gains[1]) + 1 / num_images**2
    return float(((now - was) * usual_variance + usual * variance) / (usual_variance + variance))


def decide(
    labels: np.ndarray,
    before: np.ndarray,
    learnt: Mapping[float, np.ndarray],
    weights: np.ndarray | None = None,
    objective: str = "accuracy",
) -> Decision:
    """Return what to keep: of the shares the best by the objective, if it is expected to gain.

    A share whose log loss, image by image, is above that before the phase by more than a standard
    error is out of the question: it is too sure of what it gets wrong. Among shares that are as
    often right the least log loss decides.

    Args:
        labels: `(num_images,)`, the class of each validation image.
        before: `(num_images, num_classes)`, its probabilities before the phase.
        learnt: the same for each share.
        weights: `(num_images,)`, by what each image counts. Default: 1; by another objective than
            the accuracy classes count alike.
        objective: of `OBJECTIVES`.
    """
    if objective != "accuracy":
        weights = 1 / np.bincount(labels)[labels]
    counted = np.ones(len(labels)) if weights is None else weights * len(labels) / weights.sum()
    was, losses_before = before.argmax(1) == labels, _losses(before, labels)
    found = []
    for share, outputs in learnt.items():
        lost = counted * (_losses(outputs, labels) - losses_before)
        now = outputs.argmax(1) == labels
        is_sound = bool(lost.mean() <= lost.std() / len(lost) ** 0.5)
        answers = before.argmax(1), outputs.argmax(1)
        if objective == "accuracy":
            gain, best = expected_gain(was, now, counted), counted @ now
        else:
            gain = expected_gain_by(objective, labels, *answers)
            best = measure(objective, labels, answers[1])
        kept = share if is_sound and gain > 0 else 0.0
        first, last = (float(measure(objective, labels, one)) for one in answers)
        decision = Decision(kept, first, last, gain, len(labels), is_sound, objective)
        found.append((is_sound, best, -lost.mean(), decision))
    return max(found, key=lambda one: one[:3])[3]


def _losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the log loss of each image, `(num_images,)`."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(of_label, 1e-7)))
