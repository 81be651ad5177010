# %% [markdown]
# # From the Keras guide to kerastl, line by line
#
# The [Keras guide to transfer learning](https://keras.io/guides/transfer_learning/) in plain Keras, and what kerastl has
# for each of its steps. Everything stays a `keras.Model`: replace the steps you like and keep the others. Run it with
# `python examples/from_the_keras_guide.py`; it needs no network and takes about a minute on two cores. Expected test
# accuracy with seeds 0-2: head only 0.76-0.79, with the upper stages open 0.95-0.98.

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
# ## 1. Data
#
# ```
# train_ds, validation_ds, test_ds = tfds.load("cats_vs_dogs", split=[...], as_supervised=True)
# resize_fn = keras.layers.Resizing(150, 150)
# train_ds = train_ds.map(lambda x, y: (resize_fn(x), y)).batch(64).prefetch(AUTOTUNE).cache()
# ```
#
# `load_data` also takes `"tfds:cats_vs_dogs"`, a folder or your own `tf.data` sets. The split is stratified, and
# `batches` resizes, shuffles, batches, prefetches and augments.

# %%
digits = load_digits()
pixels = np.uint8(digits.images * (255 / 16))  # their values are 0-16; kerastl takes 0-255
count = 200 if SMOKE else 1797
data = kerastl.load_data((pixels[:count], digits.target[:count]), seed=SEED)
train = data.train.batches(64, shuffle=True, seed=SEED)
validation = data.validation.batches(64)
data.show(8)

# %% [markdown]
# ## 2. The model
#
# ```
# base_model = keras.applications.Xception(weights="imagenet", input_shape=(150, 150, 3), include_top=False)
# base_model.trainable = False
# x = keras.layers.Rescaling(scale=1 / 127.5, offset=-1)(inputs)
# x = base_model(x, training=False)
# x = keras.layers.GlobalAveragePooling2D()(x)
# outputs = keras.layers.Dense(1)(keras.layers.Dropout(0.2)(x))
# ```
#
# One call knows the preprocessing of each of the 40 networks of `keras.applications`. `training=False` in the guide does
# not freeze BatchNormalization in Keras 3; kerastl sets `trainable = False` on those layers.

# %%
model = kerastl.build_transfer_model(
    "MobileNetV2(alpha=0.35)", data.num_classes, weights="embedded", image_size=64
)
for stage in kerastl.stages(model):
    print(f"stage {stage.index} ends at {stage.name}: {stage.num_parameters:,} parameters")

# %% [markdown]
# ## 3. Train the head
#
# ```
# model.compile(optimizer=keras.optimizers.Adam(), loss=..., metrics=[...])
# model.fit(train_ds, epochs=2, validation_data=validation_ds)
# ```
#
# The model is compiled, and `fit` is Keras' own.

# %%
how = {"validation_data": validation, "shuffle": False, "verbose": 2}  # `train` shuffles itself
model.fit(train, epochs=1 if SMOKE else 6, **how)
print("head only:", kerastl.evaluate(model, data.test)["accuracy"])

# %% [markdown]
# ## 4. Fine-tune
#
# ```
# base_model.trainable = True
# model.compile(optimizer=keras.optimizers.Adam(1e-5), loss=..., metrics=[...])
# model.fit(train_ds, epochs=1, validation_data=validation_ds)
# ```
#
# `freeze_to` opens the stages above a depth; a `fit` without a new `compile` raises instead of training what it trained
# before. `layerwise_optimizer` gives lower stages lower rates.

# %%
kerastl.freeze_to(model, 3)
optimizer = kerastl.layerwise_optimizer(model, "adamw", learning_rate=1e-3, layer_decay=0.7)
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=1 if SMOKE else 6, **how)
print("upper stages open:", kerastl.evaluate(model, data.test)["accuracy"])

# %% [markdown]
# ## 5. Steps 2 to 4 in two lines
#
# `fine_tune` follows a recipe, runs the frozen stages once and keeps fine-tuning only if it helps. `recipe="guide"` is
# the guide as it stands; without `recipe` the number of images decides, and `kerastl.advise` measures.

# %%
model = kerastl.build_transfer_model(
    "MobileNetV2(alpha=0.35)", data.num_classes, weights="embedded", image_size=64
)
kerastl.fine_tune(model, data, epochs=1 if SMOKE else None, verbose=False)
print("fine_tune:", kerastl.evaluate(model, data.test)["accuracy"])
