"""Messages of a run about its images and the store."""

from collections.abc import Callable
from typing import Any

from kerastl._steps import say, step
from kerastl._task import find_task
from kerastl.data.load import ImageData, load_data
from kerastl.data.options import DataOptions
from kerastl.frozen.runtime import StoreUsage

Tell = Callable[[str], None]
"""Tells a person something."""


def silent(text: str) -> None:
    """Tell nobody."""


def teller(verbose: bool | Tell) -> Tell:
    """Return the function for messages: the given one, one for stderr, or a silent one."""
    return verbose if callable(verbose) else say if verbose else silent


def tell_data(images: ImageData, tell: Tell) -> None:
    """Tell how many images there are, and what is wrong with some."""
    sizes = {"training": images.train, "validation": images.validation, "test": images.test}
    counts = ", ".join(f"{len(split):,} {name}" for name, split in sizes.items() if split)
    tell(f"{find_task(images.task).describe_names(images.class_names)}; images: {counts}.")
    for path, reason in images.skipped:
        tell(f"Left out {path}: {reason}")
    for warning in images.warnings:
        tell(f"Warning: {warning}")


def load_told(data: str, tell: Tell, options: DataOptions, **how: Any) -> ImageData:
    """Load labelled images, and tell of them; `how` is of `load_data`."""
    with step("Reading the images"):
        images = load_data(data, **how, **options.to_dict())
    tell_data(images, tell)
    return images


def tell_store(report: StoreUsage, tell: Tell) -> None:
    """Tell how much work the store of activations saved."""
    if report.from_store:
        tell(
            f"Reused stored activations of {report.images_found:,} images "
            f"(saved {report.seconds_saved:.1f} s)."
        )
    elif report.images_computed:
        later = ", stored for later runs" if report.images_stored else ""
        tell(
            f"Ran the frozen stages once on {report.images_computed:,} images "
            f"({report.engine}, {report.seconds:.1f} s){later}."
        )
