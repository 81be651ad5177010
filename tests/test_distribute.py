import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerastl.distribute import (
    on_one_device,
    pad_batches,
    resolve_strategy,
)
from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model

# One process has the two devices: a process can divide its CPU only before TensorFlow starts.
# DEVICES.py FOLDER KIND COUNT PART...
DEVICES = """
import contextlib, sys
import keras, numpy as np, tensorflow as tf
import kerastl
from kerastl.distribute import on_one_device
from kerastl.frozen.runtime import open_runtime
from kerastl.model.recipes import Phase, Recipe

kind, count = sys.argv[2], int(sys.argv[3])
if kind == "CPU":
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices(kind)[0], parts)
strategy = tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(count)])

def backbone():
    inputs = keras.Input((16, 16, 3))
    x = inputs
    for width in (4, 8, 8):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, x)

rng = np.random.default_rng(0)

def images(count):
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, 16, 16, 3))
    pixels += labels[:, None, None, None] * 40
    return pixels.astype("uint8"), labels

def built(where, **how):
    keras.utils.set_random_seed(3)
    with contextlib.nullcontext() if where is None else where.scope():
        return kerastl.build_transfer_model(backbone(), 3, **how)

def statistics(model):
    layers = model.get_layer("backbone").layers
    kept = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [value for layer in kept for value in layer.get_weights()]

def same(depth, decay):
    # 4 batches an epoch, the last of a single image: 52 steps, over pixels or what is stored.
    data = kerastl.load_data(images(61), validation_fraction=0.0, test=images(15))
    phase = Phase("fine_tune", depth, epochs=13, learning_rate=1e-3, layer_decay=decay)
    recipe = Recipe("test", (phase,), augmentation="flip", batch_size=20, balance=0.5)
    ended, told = [], []
    for where in (None, strategy):
        model = built(where)
        before = statistics(model)
        history = kerastl.fine_tune(model, data, recipe=recipe, verbose=False)
        after = statistics(model)
        still = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        ended.append(np.concatenate([w.ravel() for w in model.get_weights()]))
        told.append([history.history[name] for name in ("loss", "accuracy")])
        assert len(told[-1][0]) == 13
    start = np.concatenate([w.ravel() for w in built(None).get_weights()])
    moved = np.linalg.norm(ended[0] - start) / np.linalg.norm(start)
    apart = np.linalg.norm(ended[1] - ended[0]) / np.linalg.norm(ended[0])
    alike = np.allclose(*told, rtol=1e-3)
    print("SAME", depth, still, moved > 0.01, apart <= 1e-4 and alike, apart, told)

def same_over_pixels():
    same(0, 1.0)

def same_over_stored():
    same(1, 0.5)

# Numbers that divide by nothing: every validation image counts once.
def odd_numbers(warm=False):
    data = kerastl.load_data(images(61), validation_fraction=0.3, test=images(15))
    phases = [
        Phase("head", 3, method="probe"),
        Phase("warm", 3, epochs=2, learning_rate=1e-3),
        Phase("fine_tune", 1, epochs=2, learning_rate=1e-3),
    ]
    phases = tuple(phases if warm else phases[::2])
    recipe = Recipe("test", phases, augmentation="flip", batch_size=17, seed=2)
    model = built(strategy)
    history = kerastl.fine_tune(model, data, recipe=recipe)
    assert history.history["val_accuracy"][-1] is not None
    measured = kerastl.evaluate(model, data.validation)
    kept = history.history["val_accuracy"]
    print("ALL", measured["num_images"], min(abs(measured["accuracy"] - k) for k in kept) < 1e-6)
    return model, data

# Other tasks, and what a user gives: each of 13 validation and 15 test images counts once.
def same_for_all_tasks():
    (x, y), (held_x, held_y), (test_x, test_y) = images(61), images(13), images(15)
    metric = keras.metrics.AUC(name="auc")
    own = {"loss": "categorical_focal_crossentropy", "metrics": [metric], "class_weight": {1: 3.0}}
    tasks = {
        "multi_label": (lambda y: np.stack([y == 0, y > 0, y % 2 == 0], 1), {}),
        "regression": (lambda y: 40.0 * np.stack([y, y * y, -y], 1), {}),
        "classification": (lambda y: y, own),
    }
    file = sys.argv[1] + "/data.npz"
    for task, (labels, given) in tasks.items():
        np.savez(
            file, train_images=x, train_labels=labels(y), val_images=held_x,
            val_labels=labels(held_y), test_images=test_x, test_labels=labels(test_y),
        )
        data = kerastl.load_data(file, task=task)
        phases = Phase("head", 3, method="probe"), Phase("tune", 1, epochs=3, learning_rate=1e-2)
        recipe = Recipe("test", phases, augmentation="none", batch_size=15, task=task)
        ends, told, measured = [], [], []
        for where in (None, strategy):
            model, seen = built(where, task=task), []
            keep = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(model.get_weights())
            )
            history = kerastl.fine_tune(
                model, data, recipe=recipe, callbacks=lambda phase: [keep], verbose=False, **given
            ).history
            names = sorted(set(history) - {"phase"})
            told.append([value or 0.0 for name in names for value in history[name]])
            ends.append(np.concatenate([w.ravel() for w in seen[-1]]))
            found = kerastl.evaluate(model, data.test)
            measured.append([value for value in found.values() if isinstance(value, (int, float))])
        near = [np.allclose(*pair, rtol=1e-4, atol=1e-5) for pair in (told, measured)]
        moved = np.linalg.norm(np.concatenate([w.ravel() for w in seen[0]]) - ends[0])
        apart = np.linalg.norm(ends[1] - ends[0]) / moved
        print("TASK", task, *near, bool(moved > 0.01), bool(apart <= 1e-4), len(names), apart)
        kerastl.export_model(
            model, sys.argv[1] + "/" + task, class_names=["a", "b", "c"], parity_data=data.test
        )

# The trials of a search, over pixels and over what is stored.
def trials():
    data = kerastl.load_data(images(64), validation_fraction=0.25, test=images(15))
    space = kerastl.SearchSpace(freeze_depths=(0, 1, 3), learning_rates=(1e-3,), max_epochs=2)
    losses = []
    for where in (None, strategy):
        keras.utils.set_random_seed(3)
        with contextlib.nullcontext() if where is None else where.scope():
            network = backbone()
        found = kerastl.search(
            data, network, strategy=where, space=space, train_best=False, verbose=False
        )
        assert found.recipe.batch_size == 32
        losses.append({trial.key: trial.loss for trial in found.trials})
    near = all(abs(losses[1][key] - loss) < 1e-4 * loss for key, loss in losses[0].items())
    print("SEARCH", len(losses[0]), losses[0].keys() == losses[1].keys(), near, losses)

# The frozen stages run on both devices; what was trained on both is saved and exported.
def frozen_saved_exported():
    model, data = odd_numbers(warm=True)
    found = [
        kerastl.extract_embeddings(
            model, data.train, runtime=open_runtime(None, "tensorflow", strategy=where)
        )
        for where in (None, strategy)
    ]
    print("FROZEN", np.allclose(found[0].x, found[1].x, rtol=1e-5), len(found[1].x))
    measured = kerastl.evaluate(model, data.test)
    model.save(sys.argv[1] + "/model.keras")
    loaded = keras.models.load_model(sys.argv[1] + "/model.keras")
    x = data.test.images((16, 16), batch_size=15)
    alone = on_one_device(model)
    apart = np.abs(loaded.predict(x, verbose=0) - alone.predict(x, verbose=0)).max()
    print("SAVED", measured["num_images"], float(apart) < 1e-6)
    kerastl.export_model(
        model, sys.argv[1] + "/served", class_names=["a", "b", "c"], parity_data=data.test
    )
    print("EXPORTED")

# A user compiles outside of the scope, and trains by `fit`.
def own_fit():
    model = built(strategy)
    kerastl.freeze_to(model, 1)
    model.compile(kerastl.layerwise_optimizer(model, "sgd"), "sparse_categorical_crossentropy")
    before = model.get_weights()[-2]
    model.fit(*images(16), batch_size=8, verbose=0)
    loaded = model.optimizer
    model.compile(kerastl.layerwise_optimizer(model, loaded), "sparse_categorical_crossentropy")
    model.fit(*images(16), batch_size=8, verbose=0)
    moved = not np.array_equal(before, model.get_weights()[-2])
    print("FIT", moved, model.optimizer.iterations.numpy())
    try:
        kerastl.layerwise_optimizer(model, keras.optimizers.Adam(gradient_accumulation_steps=2))
    except ValueError as error:
        print("REFUSED", error)

# In float16 the loss is scaled: tiny gradients are not lost, and a step ends where one device does.
def mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    data = kerastl.load_data(images(61), validation_fraction=0.3, test=images(15))
    phases = Phase("head", 3, method="probe"), Phase("fine_tune", 1, epochs=3, learning_rate=1e-3)
    recipe = Recipe("test", phases, augmentation="flip", batch_size=16)
    ended = []
    for where in (None, strategy):
        model = built(where)
        kerastl.fine_tune(model, data, recipe=recipe, verbose=False)
        ended.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    apart = np.linalg.norm(ended[1] - ended[0]) / np.linalg.norm(ended[0])
    print("MIXED", bool(apart < 1e-2), apart)
    keras.config.set_dtype_policy("float32")

for part in sys.argv[4:]:
    globals()[part]()
"""


def run_on(kind, count, folder, *parts):
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, str(folder), kind, str(count), *parts],
        capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def same(lines):
    return [line.split()[:5] for line in lines if line.startswith("SAME")]


@pytest.mark.slow
def test_two_devices_end_where_one_does(tmp_path):
    lines = run_on("CPU", 2, tmp_path, "same_over_stored", "odd_numbers", "own_fit")
    assert "FIT True 4" in lines
    assert any("cannot accumulate gradients over several devices" in line for line in lines)
    assert same(lines) == [["SAME", "1", "True", "True", "True"]], lines
    assert "ALL 18 True" in lines


@pytest.mark.faults
def test_two_devices_do_all_that_one_does(tmp_path):
    parts = ("same_over_pixels", "frozen_saved_exported", "trials", "mixed_precision")
    lines = run_on("CPU", 2, tmp_path, *parts)
    assert same(lines) == [["SAME", "0", "True", "True", "True"]], lines
    assert "ALL 18 True" in lines
    assert "SAVED 15 True" in lines
    assert "EXPORTED" in lines
    assert "FROZEN True 43" in lines, lines
    assert any(line.startswith("SEARCH 4 True True") for line in lines), lines
    assert any(line.startswith("MIXED True") for line in lines), lines


@pytest.mark.faults
def test_four_devices_share_what_divides_by_none(tmp_path):
    """Tiny gradients overflow on one of them alone: all skip the step, or the weights are lost."""
    parts = "mixed_precision", "frozen_saved_exported", "own_fit", "same_for_all_tasks"
    lines = run_on("CPU", 4, tmp_path, *parts)
    for task, measures in (("multi_label", 4), ("regression", 4), ("classification", 6)):
        equal = f"TASK {task} True True True True {measures} "
        assert any(line.startswith(equal) for line in lines), lines
    assert any(line.startswith("MIXED True") for line in lines), lines
    assert {"ALL 18 True", "FROZEN True 43", "SAVED 15 True", "EXPORTED", "FIT True 4"} <= set(
        lines
    )


@pytest.mark.gpu
def test_gpus_end_where_one_does(tmp_path):
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus < 2:
        pytest.skip(f"needs two GPUs ({gpus} here)")
    lines = run_on("GPU", 2, tmp_path, "same_over_pixels", "same_over_stored")
    assert [line[4] for line in same(lines)] == ["True", "True"]


def test_names_of_strategies():
    assert resolve_strategy(None) is tf.distribute.get_strategy()
    assert resolve_strategy("none") is tf.distribute.get_strategy()
    given = tf.distribute.OneDeviceStrategy("CPU:0")
    assert resolve_strategy(given) is given
    with pytest.raises(ArgumentError, match=r"one of 'none', 'mirrored'.*Did you mean 'mirrored'"):
        resolve_strategy("miror")


def test_a_strategy_that_keras_cannot_train_under_is_refused():
    kind = tf.distribute.experimental.ParameterServerStrategy
    servers = kind.__new__(kind)
    with pytest.raises(ArgumentError, match="cannot train under ParameterServerStrategy"):
        resolve_strategy(servers)


def test_a_backbone_is_copied_to_the_devices_of_the_strategy(tiny_backbone):
    strategy, backbone = tf.distribute.OneDeviceStrategy("CPU:0"), tiny_backbone()
    model = build_transfer_model(backbone, 3, strategy=strategy)
    assert model.distribute_strategy is model.get_layer("backbone").distribute_strategy is strategy
    old, new = backbone.weights, model.get_layer("backbone").weights
    assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("count", [1, 3, 12, 13, 14, 16, 30])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_each_image_of_a_filled_batch_counts_once(count, replicas):
    rows = tf.data.Dataset.from_tensor_slices((np.arange(count), -np.arange(count))).batch(12)
    found = rows.as_numpy_iterator(), pad_batches(rows, replicas).as_numpy_iterator()
    for (images, _), (x, y, weights) in zip(*found, strict=True):
        there = len(images)
        assert len(x) % replicas == 0
        assert np.array_equal(x, -y)
        assert np.array_equal(x[:there], images)
        assert (x[there:] == images[-1]).all()
        assert np.array_equal(weights > 0, np.arange(len(x)) < there)
        # The mean over replicas of the means over their rows is that over the images.
        np.testing.assert_allclose(np.mean(weights * x), np.mean(images), rtol=1e-6)


def test_on_one_device_is_the_model_itself():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    assert on_one_device(model) is model
