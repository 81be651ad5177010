"""scikit-learn's handwritten digits, and trainings on them to compare with."""

import dataclasses
from typing import Any

from sklearn.datasets import load_digits

from kerastl.data.load import ImageData, load_data
from kerastl.model.recipes import with_epochs
from kerastl.results.evaluate import evaluate
from kerastl.results.measures import Measured
from kerastl.runs.plan import RunPlan, build_model
from kerastl.runs.settings import RunSettings, choose_backbone
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
