# %% [markdown]
# # Larger images
#
# A classifier slides over a larger image in one pass and shows where a class is: here a digit among three others. Run it
# with `python examples/larger_images.py`; it needs no network and takes 20 seconds on two cores. Expected with seeds
# 0-2: a digit alone is right 0.85 to 0.87 of the time; in scenes of four digits the surest of 81 windows lies within 4
# pixels of the wanted digit in 133 to 144 of 200, where guessing gives 10.

# %%
import sys

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits

import kerastl

SMOKE = "--smoke" in sys.argv  # few images and scenes, to see that it runs
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
SIDE = 32

# %% [markdown]
# ## A classifier without padding
#
# This network pads nothing, so that each window gets the answer of the classifier itself. Most published networks pad:
# near the size they were trained at, a window beside others is answered less well than alone.

# %%
inputs = keras.Input((SIDE, SIDE, 3))
x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
x = keras.layers.Conv2D(32, 4, strides=2, activation="relu")(x)
x = keras.layers.Conv2D(64, 3, strides=2, activation="relu")(x)
x = keras.layers.Conv2D(128, 3, activation="relu")(x)

digits = load_digits()
pixels = np.uint8(digits.images * (255 / 16))
num_train = 200 if SMOKE else 1200
data = kerastl.load_data(
    (pixels[:num_train], digits.target[:num_train]),
    test=(pixels[1200:], digits.target[1200:]),
    seed=SEED,
)
keras.utils.set_random_seed(SEED)
model = kerastl.build_transfer_model(keras.Model(inputs, x, name="small"), data.num_classes)
kerastl.fine_tune(model, data, recipe="scratch", verbose=False)
print(f"alone: {kerastl.evaluate(model, data.test)['accuracy']:.3f}")

# %% [markdown]
# ## Slide it
#
# One pass over 64 x 64 pixels answers for a window of 32 pixels every 4 pixels: 9 x 9 windows.

# %%
mapper = kerastl.ClassMapper(model)
print("window", mapper.window, "stride", mapper.stride)
rng = np.random.default_rng(SEED)
found, num_scenes = 0, 8 if SMOKE else 200
for _ in range(num_scenes):
    asked, quarter = rng.integers(10), rng.integers(4)
    scene = np.zeros((2 * SIDE, 2 * SIDE, 3), "uint8")
    for place in range(4):
        fits = (digits.target == asked) == (place == quarter)
        chosen = rng.choice(np.flatnonzero(fits[1200:]) + 1200)
        tile = np.kron(pixels[chosen], np.ones((SIDE // 8, SIDE // 8), "uint8"))
        top, left = SIDE * (place // 2), SIDE * (place % 2)
        scene[top : top + SIDE, left : left + SIDE] = tile[..., None]
    seen = mapper(scene, shorter=2 * SIDE)
    top, left, bottom, right = seen.box(*seen.strongest(asked))
    off = max(abs(top - SIDE * (quarter // 2)), abs(left - SIDE * (quarter % 2)))
    found += off <= 4
print(f"found: {found} of {num_scenes}, {found / num_scenes:.3f}")

# %% [markdown]
# The last scene, the probability of the wanted digit around each pixel, and the surest window:

# %%
figure = Figure((6, 3), layout="constrained")
for axes, overlaid in zip(figure.subplots(1, 2), (False, True), strict=True):
    axes.imshow(scene)
    axes.axis("off")
    axes.set_title(f"where is the {asked}?" if not overlaid else "answer")
    if overlaid:
        axes.imshow(seen.heat(asked), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="lime"))
figure

# %% [markdown]
# For photographs, `kerastl heatmap RUN IMAGE... --class NAME` does the same over each image, for a run that was trained
# with `--head linear`; `kerastl export RUN --fully-convolutional` writes a SavedModel that takes any size.
