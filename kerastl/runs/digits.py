"""Trainings on scikit-learn's handwritten digits, for comparison."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sklearn.datasets import load_digits

from kerastl.data.load import ImageData, load_data
from kerastl.model.recipe_changes import with_epochs
from kerastl.results.evaluate import evaluate
from kerastl.results.measures import Measured
from kerastl.runs.plan import RunPlan, build_model
from kerastl.runs.run import Run
from kerastl.runs.settings import RunSettings, choose_backbone
from kerastl.runs.training import train
from kerastl.training.fine_tune import fine_tune

IMAGE_SIZE = 64
EPOCHS = 12
TEST_FRACTION = 0.8  # few images to train on: what transfer learning is for
AUGMENTATION = "none"  # a mirrored digit is another one, or none


def digits(seed: int) -> ImageData:
    """Return scikit-learn's digits as raw pixels: 1,797 scans of 8 x 8, ten classes."""
    bunch: Any = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype("uint8")
    data = load_data(
        (pixels, bunch.target),
        class_names=[str(digit) for digit in range(10)],
        test_fraction=TEST_FRACTION,
        seed=seed,
    )
    return dataclasses.replace(data, source="scikit-learn digits")


def train_on_digits(
    directory: Path | None, seed: int, tell: Callable[[str], None]
) -> tuple[Run, dict[str, Measured]]:
    """Train a run on the digits; return it with the test measures of three trainings."""
    data = digits(seed)
    tell(f"{len(data.train):,} training images of handwritten digits ...")
    head = measured(data, "small_similar", "embedded", seed)
    run = train(
        data, output=directory, weights="embedded", scenario="large_different",
        image_size=IMAGE_SIZE, epochs=EPOCHS, augmentation=AUGMENTATION, seed=seed,
    )  # fmt: skip
    return run, {
        "embedded, head only": head,
        "embedded, fine-tuned": run.metrics["test"],
        "from scratch": measured(data, "scratch", "random", seed),
    }


def measured(data: ImageData, scenario: str, weights: str, seed: int) -> Measured:
    """Train without keeping anything, and return the measures on the test images."""
    backbone, _ = choose_backbone(weights="embedded")
    settings = RunSettings(
        data.source, backbone=backbone, weights=weights, scenario=scenario,
        image_size=(IMAGE_SIZE, IMAGE_SIZE), augmentation=AUGMENTATION, seed=seed,
    )  # fmt: skip
    model, recipe = build_model(data, RunPlan(scenario=scenario), settings)
    fine_tune(model, data, recipe=with_epochs(recipe, EPOCHS))
    return evaluate(model, data.test)
