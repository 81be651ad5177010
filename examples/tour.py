# %% [markdown]
# # kerastl in five minutes
#
# From labelled images to a trained, measured and explained classifier. This page is a script, `examples/tour.py`, and
# a notebook. It needs no network: the images are scikit-learn's handwritten digits, and the pretrained network is the
# small one that comes with kerastl (`weights="embedded"`). It takes about half a minute on two cores.

# %%
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import kerastl

SMOKE = "--smoke" in sys.argv  # fewer images, to see that it runs

# %% [markdown]
# ## The images
#
# `load_data` takes a folder with one folder per class, a table, arrays, a `tf.data.Dataset` and
# [more](../data.md). Images are raw pixels from 0 to 255. kerastl sets a fifth aside for the test.

# %%
digits = load_digits()
pixels = np.uint8(np.kron(digits.images, np.ones((4, 4))) * (255 / 16))  # 32 x 32, 0 to 255
count = 200 if SMOKE else 1000
data = kerastl.load_data((pixels[:count], digits.target[:count]))
print(data)
data.show(8)

# %% [markdown]
# ## Train
#
# One call measures how similar the images are to what the network knows, decides what to train, trains it, measures it
# on the test images, and writes all of this to a run directory.

# %%
run = kerastl.train(
    data, weights="embedded", output=Path(tempfile.mkdtemp()) / "digits", export=False
)
print(run)

# %% [markdown]
# ## Look at the result
#
# The first images are the surest right answers, the last ones the worst answers.

# %%
run.show_results(8)

# %%
run.plot_confusion()

# %% [markdown]
# `run.report()` is the path of a page with the same and more: why each choice was made, curves, and where the network
# looked.
#
# ## Use it
#
# The model is an ordinary `keras.Model` that takes raw pixels. `predict` also takes paths and encoded images.

# %%
image = data.test.subset([0])
first = np.concatenate(list(image.images((64, 64))))
print(run.predict(first))
print("the label is", data.class_names[image.labels[0]])

# %% [markdown]
# ## Decide more yourself
#
# The steps inside `train` are functions too. `diagnose` measures, `advise` turns the measures into a recipe with a
# reason for each number, and `fine_tune` follows a recipe.

# %%
model = kerastl.build_transfer_model(
    "MobileNetV2(alpha=0.35)", data.num_classes, weights="embedded", image_size=64
)
diagnosis = kerastl.diagnose(model, data)
print(kerastl.advise(diagnosis))
diagnosis.plot()

# %% [markdown]
# Next: [your own images from a folder](flowers.md), or the same
# [line by line beside the Keras guide](from_the_keras_guide.md).
