"""One machine of several: trains, and leaves its weights and history in a folder.

one_of_several.py INDEX HOST:PORT,... FOLDER [INDEX_TO_KILL]; with one host it trains alone.
"""

import json
import os
import signal
import sys
from pathlib import Path

from kerastl.distribute import resolve_strategy
from kerastl.machines import is_chief, set_cluster

INDEX, HOSTS, FOLDER = int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
KILLED = int(sys.argv[4]) if len(sys.argv) > 4 else None
if len(HOSTS) > 1:
    set_cluster(HOSTS, INDEX)
STRATEGY = resolve_strategy("multi_worker" if len(HOSTS) > 1 else "none")

import keras  # noqa: E402
import numpy as np  # noqa: E402

import kerastl  # noqa: E402
from kerastl.errors import TrainingError  # noqa: E402
from kerastl.frozen.store import ActivationStore  # noqa: E402
from kerastl.model.recipes import Phase, Recipe  # noqa: E402


class Kill(keras.callbacks.Callback):
    """Kills the process in the middle of the fourth epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self._epoch, batch) == (3, 2):
            os.kill(os.getpid(), signal.SIGKILL)


def backbone():
    inputs = keras.Input((16, 16, 3))
    x = inputs
    for width in (4, 8, 8):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, x)


def images(count, rng):
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, 16, 16, 3)) + labels[:, None, None, None] * 40
    return pixels.astype("uint8"), labels


def statistics(model):
    layers = model.get_layer("backbone").layers
    kept = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [value for layer in kept for value in layer.get_weights()]


def main():
    rng = np.random.default_rng(0)
    # 66 images in batches of 12 are 5 whole ones and one of 6: both 2 and 3 machines share them.
    data = kerastl.load_data(images(66, rng), validation_fraction=0.0, test=images(15, rng))
    keras.utils.set_random_seed(3)
    with STRATEGY.scope():
        model = kerastl.build_transfer_model(backbone(), 3)
    before = statistics(model)
    phases = (
        Phase("head", 3, method="probe"),
        Phase("fine_tune", 1, epochs=9, learning_rate=1e-3),
    )
    recipe = Recipe("test", phases, augmentation="flip", batch_size=12)
    killed = INDEX == KILLED
    try:
        history = kerastl.fine_tune(
            model, data, recipe=recipe, checkpoints=FOLDER / "checkpoints",
            callbacks=lambda phase: [Kill() if killed else keras.callbacks.Callback()],
        )  # fmt: skip
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
    np.savez(FOLDER / f"{INDEX}.npz", *model.get_weights())
    still = all(np.array_equal(a, b) for a, b in zip(before, statistics(model), strict=True))
    told = {
        "loss": history.history["loss"], "frozen": still, "chief": is_chief(STRATEGY),
        "computed": history.store.images_computed,
        "in_store": [entry.description for entry in ActivationStore().entries()],
    }  # fmt: skip
    (FOLDER / f"{INDEX}.json").write_text(json.dumps(told))


main()
