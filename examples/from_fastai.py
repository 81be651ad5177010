# %% [markdown]
# # From fastai
#
# What you type in fastai, and what you type here. Run it with `python examples/from_fastai.py`; it needs no network and
# takes two minutes on two cores. Seen once with seed 0, 200 test images: 0.765 with fastai's schedule, 0.980 (0.950 to
# 0.992) with everything left to kerastl.
#
# | fastai | kerastl |
# | --- | --- |
# | `ImageDataLoaders.from_folder(path, valid_pct=0.2)` | `kerastl.load_data(path)` |
# | `ImageDataLoaders.from_csv`, `from_df` | `kerastl.load_data("table.csv")`, `load_data(frame)` |
# | `dls.show_batch()` | `data.show()` |
# | `vision_learner(dls, resnet34, metrics=accuracy)` | `kerastl.build_transfer_model("ResNet50", data.num_classes)` |
# | `learn.fine_tune(4)` | `kerastl.fine_tune(model, data)`, or all steps: `kerastl.train(path, "ResNet50")` |
# | `learn.freeze_to(-2)` | `kerastl.freeze_to(model, 3)` (stages, counted from the input) |
# | `learn.fit_one_cycle(3, slice(1e-5, 1e-3))` | `kerastl.layerwise_optimizer(model, ...)` and `model.fit` |
# | `learn.lr_find()` | none: rates come from the recipe; `kerastl.search` compares several |
# | `learn.validate()` | `kerastl.evaluate(model, data.test)` |
# | `learn.show_results()` | `run.show_results()` |
# | `interp.plot_top_losses(9)` | `run.top_losses(9).show()` |
# | `interp.plot_confusion_matrix()` | `run.plot_confusion()` |
# | `learn.predict(image)` | `run.predict(image)` |
# | `learn.export()` (a pickle) | `run.export()` (a SavedModel), `model.save("model.keras")` |
#
# Three habits differ. fastai measures on the images it chooses by; kerastl sets test images apart. fastai always opens
# the whole network; kerastl measures whether that helps. fastai normalises in the data loader; here the model takes raw
# pixels.

# %%
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import kerastl

SMOKE = "--smoke" in sys.argv  # few images, to see that it runs
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0

# %% [markdown]
# ## Data
#
# `dls = ImageDataLoaders.from_folder(...); dls.show_batch()`

# %%
digits = load_digits()
pixels = np.uint8(digits.images * (255 / 16))  # their values are 0-16; kerastl takes 0-255
count = 200 if SMOKE else 1000
data = kerastl.load_data((pixels[:count], digits.target[:count]), seed=SEED)
data.show(4)

# %% [markdown]
# ## `fine_tune`
#
# `learn = vision_learner(dls, resnet34); learn.fine_tune(4)`. fastai's own schedule is a recipe: first the head for one
# epoch, then everything with rates that fall towards the input.

# %%
model = kerastl.build_transfer_model(
    "MobileNetV2(alpha=0.35)", data.num_classes, weights="embedded", image_size=64
)
kerastl.fine_tune(model, data, recipe="fastai", epochs=1 if SMOKE else 4, verbose=False)
print("recipe fastai:", kerastl.evaluate(model, data.test)["accuracy"])

# %% [markdown]
# ## Let it measure
#
# The same images with everything left to kerastl, and the figures of `ClassificationInterpretation`.

# %%
run = kerastl.train(
    data,
    weights="embedded",
    output=Path(tempfile.mkdtemp()) / "run",
    seed=SEED,
    export=False,
)
print(run)

# %%
run.top_losses(4).show()

# %%
run.plot_confusion()
