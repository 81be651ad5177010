"""Warnings about images and labels."""

from collections.abc import Sequence

import numpy as np

from kerastl._task import Task

FEW_IN_A_CLASS = 10


def blurred_images(median_side: int, network_side: int) -> str:
    """Return a warning if the network enlarges half of the images more than twice."""
    if median_side >= network_side / 2:
        return ""
    return (
        f"Half of the images are {median_side} pixels or less on the shorter side, and the "
        f"network enlarges them to {network_side}. They are blurred, so they look like a "
        "different kind of image."
    )


def small_classes(task: Task, class_names: Sequence[str], counts: np.ndarray) -> str:
    """Return a warning if a class or label has few training images.

    Args:
        task: of the labels.
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
        f"{task.plural.capitalize()} with few images: {', '.join(small[:10])}{more}. Add images; "
        "the results for them are uncertain."
    )


def labels_no_better_than_chance(task: Task, scores: np.ndarray, labels: np.ndarray) -> str:
    """Return a warning if a probe on the embeddings is no better than a guess.

    Args:
        task: of the labels.
        scores: of the images of a sample, of `probe_scores`.
        labels: of all training images.
    """
    if task.beats_guess(scores, labels):
        return ""
    return (
        f"The {task.score.title} of a linear probe on the embeddings is {scores.mean():.2f} on "
        f"held-out images, which is not better than a guess ({task.guess(labels):.2f}): this "
        "backbone cannot predict the labels. Check the labels, and do not trust a model that is "
        "trained on them."
    )
