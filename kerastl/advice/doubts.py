"""What is wrong or doubtful about images and labels, a sentence each."""

from collections.abc import Sequence

import numpy as np

from kerastl.advice.evidence import beats_chance
from kerastl.advice.probe import LinearProbe

FEW_IN_A_CLASS = 10


def blurred_images(median_side: int, network_side: int) -> str:
    """Return a warning where the network sees half of the images enlarged more than twice."""
    if median_side >= network_side / 2:
        return ""
    return (
        f"Half of the images are {median_side} pixels or less on their shorter side, and the "
        f"network sees them at {network_side}: blurred, which looks like another kind of image."
    )


def small_classes(class_names: Sequence[str], counts: np.ndarray) -> str:
    """Return a warning where a class has few training images.

    Args:
        class_names: of all classes.
        counts: training images of each.
    """
    small = [
        f"{name} ({count})"
        for name, count in zip(class_names, counts, strict=True)
        if count < FEW_IN_A_CLASS or count < counts.max() / 10
    ]
    if not small:
        return ""
    more = f" and {len(small) - 10} more" if len(small) > 10 else ""
    return (
        f"Classes with few images: {', '.join(small[:10])}{more}. Add images of them; "
        "what is said of them rests on little."
    )


def labels_no_better_than_chance(probe: LinearProbe, counts: np.ndarray) -> str:
    """Return a warning where a probe on the embeddings is right no more often than a guess.

    Args:
        probe: fitted to a sample of the training images.
        counts: training images of each class.
    """
    right = probe.is_right_
    if beats_chance(int(right.sum()), len(right), counts.tolist()):
        return ""
    most = counts.max() / counts.sum()
    return (
        f"A linear probe on the embeddings is right on {probe.cv_accuracy_:.0%} of held-out "
        f"images, which guessing the commonest class ({most:.0%}) could give as well: the "
        "labels do not go with what this backbone sees. Look at them, and do not trust a model "
        "that learns them."
    )
