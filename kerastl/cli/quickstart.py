"""`kerastl quickstart`: the whole way on real images, offline, in under two minutes."""

import time
from typing import Annotated

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.stop import stopping_in_order


def quickstart(
    output: options.Output = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    json: options.Json = False,
) -> None:
    """Try kerastl offline: train on scikit-learn's digits in about a minute.

    Compares the embedded backbone with training the same network from scratch, on a fifth of the
    1,797 digits; the rest is the test set.
    """
    started = time.perf_counter()
    start_tensorflow()
    from kerastl.runs.digits import AUGMENTATION, EPOCHS, IMAGE_SIZE, digits, measured
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
