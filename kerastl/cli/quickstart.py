"""`kerastl quickstart`: the whole way on real images, offline, in under two minutes."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.stop import stopping_in_order

if TYPE_CHECKING:
    from kerastl.data.load import ImageData

IMAGE_SIZE = 64
EPOCHS = 12
TEST_FRACTION = 0.8  # few images to train on: what transfer learning is for
AUGMENTATION = "none"  # a mirrored digit is another one, or none


def quickstart(
    output: Annotated[
        Path | None, typer.Option(help="Run directory; default: the next runs/N.")
    ] = None,
    seed: Annotated[int, typer.Option(help="One seed, one result.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Tell scikit-learn's handwritten digits apart, with the embedded backbone and without.

    Needs no network: the 1,797 scanned digits come with scikit-learn, the backbone with kerastl.
    A fifth of them is to learn from, the rest to measure.
    From scratch, the same network gets the same images and epochs, and trains whole.
    """
    started = time.perf_counter()
    start_tensorflow()
    from kerastl.runs.training import train

    data = digits(seed)
    say(f"{len(data.train):,} images of handwritten digits to learn from ...")
    results = {"embedded, head only": measured(data, "small_similar", "embedded", seed)}
    with stopping_in_order(output) as directory:
        run = train(
            data, output=directory, weights="embedded", scenario="large_different",
            image_size=IMAGE_SIZE, epochs=EPOCHS, augmentation=AUGMENTATION, seed=seed,
        )  # fmt: skip
    metrics = run.metrics
    results["embedded, fine-tuned"] = metrics["test"]
    results["from scratch"] = measured(data, "scratch", "random", seed)
    seconds = time.perf_counter() - started
    if json:
        print_json({"run": str(run.directory), "test": results, "seconds": seconds})
        return
    rows = [
        [name, f"{test['accuracy']:.3f}", "{:.3f}-{:.3f}".format(*test["accuracy_interval"])]
        for name, test in results.items()
    ]
    title = f"{metrics['test']['num_images']} test images, {seconds:.0f} s in all"
    print_table(title, ["", "accuracy", "95 % interval"], rows)
    say(f"The fine-tuned model, its measures and saved_model/1 lie in {run.directory}.")


def digits(seed: int) -> "ImageData":
    """Return scikit-learn's digits as raw pixels: 1,797 scans of 8 x 8, ten classes."""
    from sklearn.datasets import load_digits

    from kerastl.data.load import load_data

    bunch: Any = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype("uint8")
    data = load_data(
        (pixels, bunch.target),
        class_names=[str(digit) for digit in range(10)],
        test_fraction=TEST_FRACTION,
        seed=seed,
    )
    return dataclasses.replace(data, source="scikit-learn digits")


def measured(data: "ImageData", scenario: str, weights: str, seed: int) -> dict[str, Any]:
    """Train without keeping anything, and return the measures on the test images."""
    from kerastl.model.recipes import with_epochs
    from kerastl.results.evaluate import evaluate
    from kerastl.runs.settings import RunSettings, choose_backbone
    from kerastl.runs.training import RunPlan, build_model
    from kerastl.training.fine_tune import fine_tune

    backbone, _ = choose_backbone(weights="embedded")
    settings = RunSettings(
        data.source, backbone=backbone, weights=weights, scenario=scenario,
        image_size=(IMAGE_SIZE, IMAGE_SIZE), augmentation=AUGMENTATION, seed=seed,
    )  # fmt: skip
    model, recipe = build_model(data, RunPlan(scenario=scenario), settings)
    fine_tune(model, data, recipe=with_epochs(recipe, EPOCHS))
    return evaluate(model, data.test)
