"""What works when Keras runs on JAX, and what says that it does not."""

import importlib.util
import os
import subprocess
import sys

import pytest

import kerastl
from kerastl.cli.app import _in_words
from kerastl.errors import ArgumentError
from kerastl.serving.network import served_network

PROGRAM = """
import pathlib, sys
import keras, numpy as np
import kerastl

keras.utils.set_random_seed(0)
layers = keras.layers
inputs = keras.Input((16, 16, 3))
x = layers.Rescaling(1 / 255)(inputs)
for index in range(3):
    x = layers.Conv2D(4, 3, 2, padding="same")(x)
    x = layers.BatchNormalization()(x)
model = kerastl.build_transfer_model(keras.Model(inputs, x), 2, freeze_depth=1)
assert len(kerastl.stages(model)) == 3
images, labels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)), np.arange(8) % 2
data = kerastl.load_data((images.astype("uint8"), labels), seed=0)

for call in (
    lambda: kerastl.evaluate(model, (images, labels)),
    lambda: kerastl.fine_tune(model, data),
    lambda: kerastl.search(data, model),
    lambda: kerastl.diagnose(model, data),
    lambda: kerastl.explain(model, images),
    lambda: kerastl.export_model(model, "served", class_names=["a", "b"]),
    lambda: kerastl.extract_embeddings(model, data.train),
    lambda: kerastl.train(data, output="run"),
):
    try:
        call()
    except ValueError as error:
        assert "needs Keras on TensorFlow. Received: KERAS_BACKEND=" in str(error), error
    else:
        raise AssertionError("no error")
assert not pathlib.Path("run").exists()
print("TOLD")
if keras.config.backend() != "jax":  # which alone of the others trains without torch
    sys.exit()

kerastl.freeze_to(model, 2)
model.compile(
    kerastl.layerwise_optimizer(model, "adamw", learning_rate=0.01, clipnorm=1.0, weight_decay=0.1),
    "sparse_categorical_crossentropy",
)
before = [np.array(weight) for weight in model.weights]
model.fit(images, np.arange(8) % 3 // 2, verbose=0, epochs=3)
moved = [not np.array_equal(old, new) for old, new in zip(before, model.weights)]
trained = {weight.path for weight in model.trainable_variables}
changed = {weight.path for weight, has in zip(model.weights, moved) if has}
assert trained == changed, (trained, changed)
model.save("model.keras")
loaded = keras.saving.load_model("model.keras")
for old, new in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
    np.testing.assert_array_equal(old, new)
optimizer = kerastl.layerwise_optimizer(loaded, loaded.optimizer)
loaded.compile(optimizer, "sparse_categorical_crossentropy")
schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.2)
loaded.fit(images, labels, verbose=0, callbacks=[schedule])
rates = [float(one.learning_rate) for one in optimizer.optimizers]
np.testing.assert_allclose(rates, [0.2, 0.2], rtol=1e-5)
print("TRAINED")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "numpy", "openvino"])
def test_what_needs_tensorflow_says_so_and_the_rest_works(backend, tmp_path):
    if importlib.util.find_spec("jax") is None:  # Keras' NumPy takes it as well
        pytest.skip("needs jax")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["TOLD"] + ["TRAINED"] * (backend == "jax")


def test_a_backend_that_is_not_installed_is_told_without_a_trace(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    told = _in_words(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert (
        told == "KERAS_BACKEND=torch is not installed. The commands need KERAS_BACKEND=tensorflow."
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda model, data: kerastl.evaluate(model, data.test),
        lambda model, data: kerastl.fine_tune(model, data),
        lambda model, data: kerastl.search(data),
        lambda model, data: kerastl.diagnose(model, data),
        lambda model, data: kerastl.explain(model, None),
        lambda model, data: kerastl.train(data),
        lambda model, data: served_network(model),
    ],
)
def test_each_says_so_before_any_work(call, tiny_backbone, shapes_data, monkeypatch):
    monkeypatch.setattr("keras.config.backend", lambda: "jax")
    told = "needs Keras on TensorFlow. Received: KERAS_BACKEND='jax'"
    with pytest.raises(ArgumentError, match=told):
        call(tiny_backbone(), shapes_data)
