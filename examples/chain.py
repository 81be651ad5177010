"""A chain of two steps: digits 0-4 first, then digits 5-9 of which only a few are labelled.

    python examples/chain.py

needs no network and takes about a minute on two cores. Expected, test accuracy on 5-9 from ten
images a class, seeds 0-2: straight from random weights 0.20 (chance), after the digits 0-4
0.37-0.52.

For folders of images, `kerastl chain FILE` does the same, resumes, and compares:

    weights = "random"

    [[step]]
    name = "first"
    data = "digits_0_to_4/"
    scenario = "scratch"

    [[step]]
    name = "goal"
    data = "digits_5_to_9/"

`--smoke` takes 100 images for the first step, to see that it runs.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import kerastl


def load(classes: range, seed: int, a_class: int | None = None) -> object:
    # scikit-learn's digits are 8 x 8 with values 0-16; kerastl takes raw pixels, 0-255.
    digits = load_digits()
    pixels, labels = np.uint8(digits.images * (255 / 16)), digits.target - classes[0]
    rows = np.flatnonzero(np.isin(digits.target, classes))
    order = np.random.default_rng(seed).permutation(rows)
    if a_class is None:
        return kerastl.load_data((pixels[order], labels[order]), seed=seed)
    few = np.concatenate([order[labels[order] == label][:a_class] for label in range(len(classes))])
    rest = np.setdiff1d(order, few)
    return kerastl.load_data(
        (pixels[few], labels[few]),
        test=(pixels[rest], labels[rest]),
        validation_fraction=0.0,
        seed=seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = load(range(5), arguments.seed, 20 if arguments.smoke else None)
    goal = load(range(5, 10), arguments.seed, a_class=10)

    # Step 1: there are no pretrained weights, so all of the network trains.
    first = kerastl.build_transfer_model(
        "MobileNetV2(alpha=0.35)", source.num_classes, weights="random", image_size=64
    )
    kerastl.fine_tune(first, source, recipe="scratch")
    print("digits 0-4:", kerastl.evaluate(first, source.test)["accuracy"])

    # Step 2: the head of the first step is replaced, its backbone copied.
    straight = kerastl.build_transfer_model(
        "MobileNetV2(alpha=0.35)", goal.num_classes, weights="random", image_size=64
    )
    second = kerastl.build_transfer_model(first, goal.num_classes)
    for name, model in (("straight", straight), ("after digits 0-4", second)):
        kerastl.fine_tune(model, goal, recipe="small_similar", verbose=False)
        found = kerastl.evaluate(model, goal.test)
        low, high = found["accuracy_interval"]
        print(f"digits 5-9, {name}: {found['accuracy']:.3f} ({low:.3f}-{high:.3f})")


if __name__ == "__main__":
    main()
