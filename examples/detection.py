# %% [markdown]
# # Objects in pictures
#
# `task="detection"` finds objects: a box, a class and a score for each. The frozen stages of any convolutional backbone
# run once, at three strides; a small head trains on them. Run it with `python examples/detection.py`; it needs no network,
# but `pip install 'kerastl[detection]'`.

# %%
import sys

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import kerastl

SMOKE = "--smoke" in sys.argv  # few images and one epoch, to see that it runs
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
COUNT, EPOCHS = (40, 1) if SMOKE else (300, None)
SIDE = 96
rng = np.random.default_rng(SEED)
digits = load_digits()

# %% [markdown]
# ## Data
#
# Ones, fours and sevens of different sizes on a noisy background. In arrays a box is a row of five numbers: its left, top,
# right and bottom as shares of the image, and the number of its class; rows of -1 fill up. COCO, Pascal VOC, YOLO and
# Label Studio are read from their files: see [Your data](../data.md).

# %%
NAMES = ["1", "4", "7"]
images = rng.integers(0, 90, (COUNT, SIDE, SIDE, 3)).astype("uint8")
boxes = np.full((COUNT, 2, 5), -1, "float32")
for image, rows in zip(images, boxes, strict=True):
    for place in range(rng.integers(1, 3)):
        number = int(rng.integers(len(NAMES)))
        some = digits.images[digits.target == int(NAMES[number])]
        side = int(rng.integers(24, 45))
        digit = Image.fromarray((some[rng.integers(len(some))] * 15.9).astype("uint8"))
        pixels = np.asarray(digit.resize((side, side), Image.Resampling.BILINEAR))
        x = int(rng.integers(0, SIDE // 2 - side + 1)) + place * SIDE // 2  # one a half
        y = int(rng.integers(0, SIDE - side + 1))
        part = image[y : y + side, x : x + side]
        part[:] = np.maximum(part, pixels[..., None])
        columns, lines = np.flatnonzero(pixels.max(0) > 60), np.flatnonzero(pixels.max(1) > 60)
        box = [x + columns[0], y + lines[0], x + columns[-1] + 1, y + lines[-1] + 1]
        rows[place] = [*(side / SIDE for side in box), number]
data = kerastl.load_data((images, boxes), task="detection", class_names=NAMES, seed=SEED)
data.show(4)

# %% [markdown]
# ## Training
#
# First the head, on the stored maps; then the upper stages, at lower rates. `print` shows COCO's average precision.

# %%
run = kerastl.train(
    data,
    "MobileNetV2(alpha=0.35)",
    weights="embedded",
    image_size=SIDE,
    epochs=EPOCHS,
    seed=SEED,
    verbose=False,
)
print(run)
print(run.evaluate(data))

# %% [markdown]
# ## Answers
#
# `predict` takes files of any size and gives boxes in pixels of each. The exported SavedModel answers the same from the
# bytes of an image: `boxes`, `scores`, `class_id` and `label`.

# %%
run.predict(images[:3]).rows()
