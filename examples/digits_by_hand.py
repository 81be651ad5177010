"""Freeze, compile and fit by hand: handwritten digits with the embedded backbone.

    python examples/digits_by_hand.py

needs no network and takes about a minute on two cores. Expected, test accuracy over seeds 0-2:
head only 0.76-0.79, with the upper stages open 0.95-0.98.

`--smoke` trains on 200 images for one epoch, to see that it runs.
"""

import argparse

import keras
import numpy as np
from sklearn.datasets import load_digits

import kerastl


def load(seed: int, num_images: int) -> object:
    # scikit-learn's digits are 8 x 8 with values 0-16; kerastl takes raw pixels, 0-255.
    digits = load_digits()
    pixels = np.uint8(digits.images * (255 / 16))
    return kerastl.load_data((pixels[:num_images], digits.target[:num_images]), seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    data = load(arguments.seed, 200 if arguments.smoke else 1797)

    # A compiled model whose head alone trains. Raw pixels go in; preprocessing is inside.
    model = kerastl.build_transfer_model(
        "MobileNetV2(alpha=0.35)", data.num_classes, weights="embedded", image_size=64
    )
    for stage in kerastl.stages(model):
        print(
            f"stage {stage.index}: ends at {stage.name}, {stage.num_parameters:,} parameters, "
            f"{stage.macs_share:.0%} of the work"
        )

    # First the head, in plain Keras.
    train = data.train.batches(64, shuffle=True, seed=arguments.seed)
    fit = {
        "validation_data": data.validation.batches(64),
        "epochs": 1 if arguments.smoke else 6,
        "shuffle": False,  # the data set does
        "verbose": 2,
    }
    model.fit(train, **fit)
    print("head only:", kerastl.evaluate(model, data.test)["accuracy"])

    # Then the upper stages, at rates that fall towards the input. Forgetting compile() raises.
    kerastl.freeze_to(model, 3)
    optimizer = kerastl.layerwise_optimizer(model, "adamw", learning_rate=1e-3, layer_decay=0.7)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, **fit)
    print("upper stages open:", kerastl.evaluate(model, data.test)["accuracy"])


if __name__ == "__main__":
    main()
