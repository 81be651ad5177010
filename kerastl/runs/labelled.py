"""Loads labelled images for a trained model."""

from typing import Any

from kerastl.data.load import ImageData, load_data
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.data.split import Split
from kerastl.errors import ArgumentError


def labelled_images(data: Any, class_names: list[str], task: str, *how: Any) -> tuple[str, Split]:
    """Return `"test"` and the test part of labelled images if there is one; else `"all"`, all.

    Data that is not loaded yet is loaded by `load_whole`, which takes `how`.
    """
    if isinstance(data, Split):
        return "all", data
    if not isinstance(data, ImageData):
        data = load_whole(data, class_names, task, *how)
    check_names(data, class_names)
    return ("all", data.train) if data.test is None else ("test", data.test)


def check_names(data: ImageData, class_names: list[str]) -> None:
    """Raise an `ArgumentError` unless data has the classes of a run, in their order."""
    if list(data.class_names) != class_names:
        raise ArgumentError(
            f"The run has the classes {class_names}. Received: data with {data.class_names}. "
            "Load it with `class_names=run.class_names`."
        )


def load_whole(
    data: Any,
    class_names: list[str],
    task: str,
    on_bad: str = "error",
    options: DataOptions = NO_OPTIONS,
) -> ImageData:
    """Load labelled images for a trained model, without splitting them."""
    return load_data(
        data,
        class_names=class_names,
        test_fraction=0.0,
        validation_fraction=0.0,
        on_bad=on_bad,
        task=task,
        **options.to_dict(),
    )
