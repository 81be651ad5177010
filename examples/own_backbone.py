# %% [markdown]
# # Your own backbone
#
# Any Functional `keras.Model` can be the backbone: a network you trained, one from a paper, or an earlier kerastl run.
# Here a small network learns the digits 0-4 first, and then helps with the digits 5-9, of which only ten each are
# labelled. Run it with `python examples/own_backbone.py`; it needs no network and takes about a minute on two cores.
# Expected test accuracy on the digits 5-9 with seeds 0-2: 0.70-0.76 with random weights, 0.77-0.81 after the digits
# 0-4.

# %%
import sys

import keras
import numpy as np
from sklearn.datasets import load_digits

import kerastl

SMOKE = "--smoke" in sys.argv  # few images, one epoch, to see that it runs
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
keras.utils.set_random_seed(SEED)

# %% [markdown]
# ## Train it in plain Keras
#
# The network takes raw pixels and has its own preprocessing (`Rescaling`) inside.

# %%
pixels = keras.Input((32, 32, 3), name="pixels")
x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
for block, filters in enumerate((16, 32, 64)):
    x = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv_{block}")(x)
    x = keras.layers.BatchNormalization(name=f"norm_{block}")(x)
    x = keras.layers.ReLU(name=f"relu_{block}")(x)
    x = keras.layers.MaxPooling2D(name=f"pool_{block}")(x)
features = keras.Model(pixels, x, name="mine")
classes = keras.layers.Dense(5, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
teacher = keras.Model(pixels, classes)

digits = load_digits()
images = np.uint8(np.kron(digits.images, np.ones((4, 4))) * (255 / 16))[..., None].repeat(3, -1)
low = digits.target < 5
teacher.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = teacher.fit(
    images[low], digits.target[low], epochs=1 if SMOKE else 12, batch_size=32, verbose=0
)
print(f"digits 0-4, training accuracy: {history.history['accuracy'][-1]:.3f}")

# %% [markdown]
# ## Use it
#
# `build_transfer_model` copies the network and finds its stages in the graph: places where one tensor alone is live.
# Nothing is listed by hand.

# %%
rng = np.random.default_rng(SEED)
few = np.concatenate(
    [rng.permutation(np.flatnonzero(digits.target == n))[:10] for n in range(5, 10)]
)
rest = np.setdiff1d(np.flatnonzero(~low), few)
data = kerastl.load_data(
    (images[few], digits.target[few]),
    test=(images[rest], digits.target[rest]),
    validation_fraction=0.0,
    class_names=["5", "6", "7", "8", "9"],
)
data.show(8)

# %%
model = kerastl.build_transfer_model(features, data.num_classes, class_names=data.class_names)
for stage in kerastl.stages(model):
    print(f"stage {stage.index} ends at {stage.name}: {stage.num_parameters:,} parameters")

# %% [markdown]
# With ten images a class the head alone is trained (`small_similar`). The same network with random weights shows what
# the first training was worth.

# %%
untrained = keras.models.clone_model(features)
for name, backbone in {"random weights": untrained, "after the digits 0-4": features}.items():
    model = kerastl.build_transfer_model(backbone, data.num_classes)
    kerastl.fine_tune(model, data, recipe="small_similar", verbose=False)
    found = kerastl.evaluate(model, data.test)
    lower, upper = found["accuracy_interval"]
    print(f"digits 5-9, {name}: {found['accuracy']:.3f} ({lower:.3f}-{upper:.3f})")

# %% [markdown]
# ## In a run
#
# Save the network to use it on the command line: `kerastl train photos/ --backbone mine.keras`. A run is a backbone too
# (`--backbone runs/1`), and `kerastl chain steps.toml` runs several steps and compares them with going straight:
#
# ```
# [[step]]
# name = "first"
# data = "digits_0_to_4/"
#
# [[step]]
# name = "goal"
# data = "digits_5_to_9/"
# ```
