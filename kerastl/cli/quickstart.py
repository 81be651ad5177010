"""`kerastl quickstart`: trains on real images, offline, in under two minutes."""

import time

from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.cli.options import Json, Output, PlainSeed
from kerastl.cli.stop import stopping_in_order


def quickstart(output: Output = None, seed: PlainSeed = 0, json: Json = False) -> None:
    """Try kerastl offline: train on scikit-learn's digits in about a minute.

    Compares the embedded backbone with the same network trained from scratch, on a fifth of the
    1,797 digits; the other digits are the test set.

    Example: kerastl quickstart
    """
    started = time.perf_counter()
    start_tensorflow()
    from kerastl.runs.digits import train_on_digits

    with stopping_in_order(output) as directory:
        run, results = train_on_digits(directory, seed, say)
    seconds = time.perf_counter() - started
    if json:
        print_json({"run": str(run.directory), "test": results, "seconds": seconds})
        return
    rows = [
        [name, f"{test['accuracy']:.3f}", "{:.3f}-{:.3f}".format(*test["accuracy_interval"])]
        for name, test in results.items()
    ]
    title = f"{run.metrics['test']['num_images']} test images, {seconds:.0f} s in all"
    print_table(title, ["", "accuracy", "95 % interval"], rows)
    say(f"The model, its measures and saved_model/1 are in {run.directory}.")
