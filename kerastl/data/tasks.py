"""What a model is to tell of an image: one class, several labels, or numbers."""

from kerastl.errors import ArgumentError

TASKS = ("classification", "multi_label", "regression")
"""One class of several; any number of labels; one number or more."""

NOUNS = {"classification": "classes", "multi_label": "labels", "regression": "targets"}
"""What `class_names` name in each task."""


def counted(count: int, task: str) -> str:
    """Return how many classes, labels or targets there are, as text."""
    one = {"classification": "class", "multi_label": "label", "regression": "target"}
    return f"{count} {NOUNS[task] if count != 1 else one[task]}"


_BY_NAME = (
    "Train by a recipe of a name, such as `fine_tune(model, data, recipe='large_similar')`, and "
    "compare by `evaluate`."
)


def check_classifies(task: str, what: str, advice: str = _BY_NAME) -> None:
    """Raise an `ArgumentError` unless a task is classification, the one that `what` is for.

    Args:
        task: of `TASKS`.
        what: is asked for, as a sentence begins.
        advice: what to do instead.
    """
    if task != "classification":
        raise ArgumentError(
            f"{what} goes by which one class each image is of, so it takes "
            f"task='classification' alone. Received: task={task!r}. {advice}"
        )
