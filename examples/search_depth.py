"""Search how much of a backbone to freeze, with kerastl and with any tuner of KerasTuner.

    python examples/search_depth.py

needs no network. Handwritten digits with the embedded backbone: `kerastl.search` runs what is
frozen once for all trials of a depth, then trains the best in full; `TransferHyperModel` hands the
same choices to a tuner of KerasTuner, which runs the whole network in each step of each trial.
Seen once (seed 0): 12 trials, the best at freeze depth 3 with 0.954 on the validation images, 0.942
once corrected for selection bias, and 0.936 on the test images.

`--smoke` does two trials on 200 images, to see that it runs.
"""

import argparse
import tempfile

import keras_tuner
import numpy as np
from sklearn.datasets import load_digits

import kerastl
from kerastl.training.hypermodel import TransferHyperModel
from kerastl.training.search import search

BACKBONE = "MobileNetV2(alpha=0.35)"
SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    num_images, max_trials = (200, 2) if arguments.smoke else (1797, 12)
    # scikit-learn's digits are 8 x 8 with values 0-16; kerastl takes raw pixels, 0-255.
    digits = load_digits()
    pixels = np.uint8(digits.images * (255 / 16))[:num_images]
    data = kerastl.load_data((pixels, digits.target[:num_images]), seed=arguments.seed)
    ours(data, max_trials, arguments.seed)
    keras_tuners(data, 1 if arguments.smoke else 4, arguments.seed)


def ours(data: object, max_trials: int, seed: int) -> None:
    # The directory keeps each trial: run again, a search that was stopped goes on.
    directory = tempfile.mkdtemp()
    result = search(
        data, BACKBONE, weights="embedded", max_trials=max_trials, directory=directory, seed=seed
    )
    print(result)
    print("test:", kerastl.evaluate(result.model, data.test)["accuracy"])
    result.plot().savefig(f"{directory}/search.png")


def keras_tuners(data: object, max_trials: int, seed: int) -> None:
    space = TransferHyperModel(BACKBONE, data.num_classes, weights="embedded", image_size=SIZE)
    tuner = keras_tuner.RandomSearch(
        space,
        objective="val_accuracy",
        max_trials=max_trials,
        directory=tempfile.mkdtemp(),
        seed=seed + 1,  # KerasTuner takes 0 for no seed
    )
    tuner.search(
        data.train.batches(SIZE, shuffle=True, seed=seed),
        validation_data=data.validation.batches(SIZE),
        epochs=1,
        shuffle=False,  # the data set does
        verbose=0,
    )
    # KerasTuner fills its list of the best with trials that failed: look at the completed ones.
    best = tuner.oracle.get_best_trials()[0]
    print(best.status, best.score, best.hyperparameters.values)


if __name__ == "__main__":
    main()
