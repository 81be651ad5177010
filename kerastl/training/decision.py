"""Whether what a phase learnt replaces what was there before it, and in what share."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Of the images that are wrong before a phase, the share that it mends: mean and deviation of what
# is expected before any validation image is looked at. On the open sets it was 0 to 80 %.
MENDED, MENDED_DEVIATION = 0.15, 0.3
LEAST_DEVIATION = 0.01  # of the accuracy: what is hardly ever wrong can still be spoilt
# Of the way from the weights before a phase to those after it. Between them accuracy is kept and
# the answers are less oversure (https://arxiv.org/abs/2109.01903).
SHARES = (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Decision:
    """What became of the weights that a phase learnt.

    Args:
        share: of the way from the weights before to those learnt, 0 to 1; 0 where the phase is
            not kept.
        before: the share of the validation images that was right before.
        after: that of the weights learnt.
        gain: what is expected of new images, given both and what such phases usually bring.
        num_images: validation images.
        is_sound: whether the log loss did not rise by more than a standard error.
    """

    share: float
    before: float
    after: float
    gain: float
    num_images: int
    is_sound: bool

    def text(self, phase: str) -> str:
        """Return it as a sentence or two."""
        result = (
            f"Validation accuracy {self.after:.3f}, before {self.before:.3f} "
            f"({self.num_images:,} images); expected gain on new images "
            f"{100 * self.gain:+.1f} points"
        )
        if not self.is_sound:
            result += ", but the log loss rose by more than one standard error"
        if not self.share:
            return f"{phase}: not kept. {result}. The model from before it is used."
        way = "" if self.share == 1 else f", {self.share:.0%} of the way from the weights before"
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


def decide(
    labels: np.ndarray,
    before: np.ndarray,
    learnt: Mapping[float, np.ndarray],
    weights: np.ndarray | None = None,
) -> Decision:
    """Return what to keep: of the shares the one most often right, if it is expected to gain.

    A share whose log loss, image by image, is above that before the phase by more than a standard
    error is out of the question: it is too sure of what it gets wrong. Among shares that are as
    often right the least log loss decides.

    Args:
        labels: `(num_images,)`, the class of each validation image.
        before: `(num_images, num_classes)`, its probabilities before the phase.
        learnt: the same for each share.
        weights: `(num_images,)`, by what each image counts. Default: 1.
    """
    counted = np.ones(len(labels)) if weights is None else weights * len(labels) / weights.sum()
    was, losses_before = before.argmax(1) == labels, _losses(before, labels)
    found = []
    for share, outputs in learnt.items():
        lost = counted * (_losses(outputs, labels) - losses_before)
        now = outputs.argmax(1) == labels
        is_sound = bool(lost.mean() <= lost.std() / len(lost) ** 0.5)
        gain = expected_gain(was, now, counted)
        kept = share if is_sound and gain > 0 else 0.0
        shares = float(was.mean()), float(now.mean())
        decision = Decision(kept, *shares, gain, len(labels), is_sound)
        found.append((is_sound, counted @ now, -lost.mean(), decision))
    return max(found, key=lambda one: one[:3])[3]


def _losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the log loss of each image, `(num_images,)`."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(of_label, 1e-7)))
