import os
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.engine import hyperparameters

from kerastl.data.decode import resize
from kerastl.errors import ArgumentError
from kerastl.model.freeze import stages
from kerastl.model.kept_words import origin_of
from kerastl.training.hypermodel import TransferHyperModel
from tests.training.small import SIZE, small_backbone, small_data, unsettled

# KerasTuner 1.4.8 calls `threading.currentThread().getName()`.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning:sklearn"),
]

TUNERS = {
    "RandomSearch": {"max_trials": 2},
    "GridSearch": {"max_trials": 2},
    "BayesianOptimization": {"max_trials": 2, "num_initial_points": 1},
    "Hyperband": {"max_epochs": 2, "factor": 2},
}


@pytest.fixture(scope="module")
def data():
    return unsettled(small_data(40))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name != "RandomSearch" else ())
        for name in TUNERS
    ],
)
def test_every_tuner_takes_it_as_it_is(data, tmp_path, name):
    space = TransferHyperModel(small_backbone(), 3, learning_rates=(1e-3, 1e-2))
    tuner = getattr(keras_tuner, name)(
        space, objective="val_accuracy", directory=tmp_path, seed=1, **TUNERS[name]
    )
    tuner.oracle.max_trials = 2
    train, validation = data.train.batches(SIZE), data.validation.batches(SIZE)
    tuner.search(train, validation_data=validation, shuffle=False, verbose=0)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["COMPLETED"] * len(statuses)
    assert len(statuses) >= 2
    names = {hp.name for hp in tuner.oracle.get_space().space}
    assert names >= {
        "freeze_depth", "learning_rate", "backbone_rate", "layer_decay", "weight_decay", "head",
        "dropout", "augmentation",
    }  # fmt: skip


def test_the_values_are_those_of_the_model(tiny_backbone):
    backbone = tiny_backbone()
    space = TransferHyperModel(backbone, 3)
    hp = keras_tuner.HyperParameters()
    assert not space.build(hp).get_layer("backbone").trainable_variables
    hp.values |= {"freeze_depth": 2, "learning_rate": 2e-3, "layer_decay": 0.5}
    model = space.build(hp)
    assert model.compiled
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-3)
    trained = {v.path.split("/")[0] for v in model.trainable_variables}
    assert trained == {"conv_2", "conv_3", "head"}
    depth = next(one for one in hp.space if one.name == "freeze_depth")
    assert depth.max_value == len(stages(model)) == 4
    hp.values |= {"head": "mlp", "dropout": 0.25}
    layers = space.build(hp).get_layer("head").layers
    assert [layer.rate for layer in layers if hasattr(layer, "rate")] == [0.25, 0.25]
    assert [layer.units for layer in layers if hasattr(layer, "units")] == [512, 3]


def watched(model):
    """Return a list that fills with the images of each training step."""
    seen, step = [], model.train_step

    def kept(batch):
        seen.append(batch[0].numpy())
        return step(batch)

    model.train_step, model.run_eagerly = kept, True
    return seen


@pytest.mark.parametrize("name", ["none", "flip", "strong"])
def test_the_batches_are_augmented(data, name):
    hp = keras_tuner.HyperParameters()
    hp.values["augmentation"] = name
    space, plain = TransferHyperModel(small_backbone(), 3), data.train.batches(SIZE, 16)
    images = [images.numpy().astype("float32") for images, _ in plain]
    model = space.build(hp)
    seen = watched(model)
    space.fit(hp, model, x=plain, epochs=2, shuffle=False, verbose=0)
    first, second = seen[: len(images)], seen[len(images) :]
    assert [batch.shape for batch in first] == [batch.shape for batch in images]
    unchanged = [np.array_equal(one, other) for one, other in zip(first, images, strict=True)]
    repeated = [np.array_equal(one, other) for one, other in zip(first, second, strict=True)]
    assert all(unchanged) is all(repeated) is (name == "none")
    if name == "flip":
        for viewed, original in zip(np.concatenate(first), np.concatenate(images), strict=True):
            assert np.array_equal(viewed, original) or np.array_equal(viewed, original[:, ::-1])


@pytest.mark.parametrize("split", [{"validation_split": 1 / 3}, {}])
def test_arrays_are_augmented_as_batches_are(split):
    hp = keras_tuner.HyperParameters()
    hp.values["augmentation"] = "flip"
    space = TransferHyperModel(small_backbone(), 3)
    images, labels = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3)), np.arange(6) % 3
    model = space.build(hp)
    seen = watched(model)
    held_out = {} if split else {"validation_data": (images, labels)}
    history = space.fit(hp, model, images, labels, batch_size=2, verbose=0, **split, **held_out)
    assert history.history["val_loss"]
    assert {len(batch) for batch in seen} == {2}
    assert history.params["steps"] in (2, None) if split else 3
    for image in np.concatenate(seen):
        assert any(np.array_equal(image, own) for own in (*images, *images[:, :, ::-1]))
    with pytest.raises(keras_tuner.errors.FatalError, match="augmentations='none'"):
        space.fit(hp, model, (batch for batch in [(images, labels)]))


def test_one_number_is_no_range():
    """Freeze depth alone is searched, as the space of a tuner shows."""
    fixed = {"learning_rates": 1e-3, "layer_decays": 0.5, "weight_decays": 1e-4, "dropouts": 0.2}
    space = TransferHyperModel(
        small_backbone(), 3, heads="linear", augmentations="none", freeze_depths=1, **fixed
    )
    hp = keras_tuner.HyperParameters()
    model = space.build(hp)
    rates = [float(one.learning_rate) for one in model.optimizer.optimizers]
    assert rates == pytest.approx([1e-3, 1e-3])
    assert model.optimizer.optimizers[0].weight_decay == pytest.approx(1e-4)
    searched = {one.name for one in hp.space if not isinstance(one, hyperparameters.Fixed)}
    assert searched == {"freeze_depth", "head", "augmentation", "backbone_rate"}
    assert hp.get("freeze_depth") == 1


def test_the_size_is_a_hyperparameter(data):
    how = {"weights": "random", "image_sizes": (32, 48), "augmentations": ("none",)}
    space = TransferHyperModel("MobileNet(alpha=0.25)", 3, **how)
    hp = keras_tuner.HyperParameters()
    assert space.build(hp).input_shape == (None, 32, 32, 3)
    assert next(p for p in hp.space if p.name == "image_size").values == [32, 48]
    hp.values["image_size"] = 48
    model = space.build(hp)
    seen, batches = watched(model), data.train.batches(64)
    how = {"validation_data": batches, "shuffle": False, "verbose": 0}
    history = space.fit(hp, model, batches, **how).history
    assert {images.shape[1:] for images in seen} == {(48, 48, 3)}
    whole = next(iter(batches))[0].numpy()
    np.testing.assert_array_equal(seen[0], resize(whole, (48, 48)))
    assert history["val_loss"]
    seen.clear()
    space.fit(hp, model, np.zeros((3, 64, 64, 3), "uint8"), np.arange(3), verbose=0)
    assert {images.shape[1:] for images in seen} == {(48, 48, 3)}


def test_trials_do_not_train_the_users_backbone(data):
    backbone = small_backbone()
    before = [weights.copy() for weights in backbone.get_weights()]
    hp = keras_tuner.HyperParameters()
    hp.values["freeze_depth"] = 0
    model = TransferHyperModel(backbone, 3, freeze_depths=[0, 2]).build(hp)
    start = model.get_layer("backbone").get_weights()
    model.fit(data.train.batches(SIZE), shuffle=False, verbose=0)
    for old, new, copied in zip(before, backbone.get_weights(), start, strict=True):
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old, copied)


def test_several_backbones_have_depths_of_their_own():
    names = ["MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
    space = TransferHyperModel(names, 3, weights="random", image_size=32)
    hp = keras_tuner.HyperParameters()
    assert "mobilenetv2" in origin_of(space.build(hp)).backbone.lower()
    depths = [name for name in (p.name for p in hp.space) if name.startswith("freeze_depth")]
    assert depths == [f"freeze_depth of {name}" for name in names]
    hp.values |= {"backbone": names[1], "freeze_depth of MobileNet(alpha=0.25)": 0}
    model = space.build(hp)
    assert origin_of(model).backbone == names[1]
    assert len(model.trainable_variables) > 20


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_classes": 1}, "`num_classes` must be an int of at least 2"),
        (
            {"learning_rates": (1e-3, 1e-4)},
            r"`learning_rates` must be a number or .*, above 0",
        ),
        ({"layer_decays": (0.5, 1.5)}, "`layer_decays` must be .* at most 1"),
        ({"heads": ["linaer"]}, "`heads` must be one of 'linear', 'stages', 'mlp'"),
        ({"dropouts": (0.0, 1.5)}, "`dropouts` must be .* from 0, at most 0.99"),
        ({"augmentations": ["mild"]}, "`augmentations` must be one of 'none'"),
        ({"image_sizes": (32, 0)}, "`image_sizes` must be an int of at least 1"),
        ({"image_size": 32, "image_sizes": (32, 64)}, "`image_size` or `image_sizes`"),
        ({"weights": ["random"] * 3}, "one for each of the 1. Received 3"),
    ],
)
def test_wrong_arguments_are_told(changes, told):
    with pytest.raises(ArgumentError, match=told):
        TransferHyperModel(**{"backbone": "MobileNetV2", "num_classes": 3, **changes})


@pytest.mark.slow
def test_under_a_strategy(data, tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        space = TransferHyperModel(small_backbone(), 3)
    tuner = keras_tuner.RandomSearch(
        space, objective="val_loss", max_trials=1, directory=tmp_path, seed=1,
        distribution_strategy=strategy,
    )  # fmt: skip
    train, validation = data.train.batches(SIZE), data.validation.batches(SIZE)
    tuner.search(train, validation_data=validation, shuffle=False, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "COMPLETED"
    assert tuner.get_best_models()[0].distribute_strategy is strategy


MIRRORED = """
import sys
import keras, keras_tuner, numpy as np, tensorflow as tf
from kerastl.data.load import load_data
from kerastl.training.hypermodel import TransferHyperModel

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
inputs = keras.Input((16, 16, 3))
x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, 2)(inputs))
space = TransferHyperModel(keras.Model(inputs, keras.layers.ReLU()(x)), 2)
images = np.random.default_rng(0).integers(0, 255, (60, 16, 16, 3)).astype("uint8")
data = load_data((images, np.arange(60) % 2), test_fraction=0.2, validation_fraction=1 / 3)
kinds = [
    (keras_tuner.Hyperband, {"max_epochs": 2, "factor": 2}),
    (keras_tuner.BayesianOptimization, {"max_trials": 2, "num_initial_points": 1}),
]
# One for all tuners: the collectives of a second one would meet those of the first.
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for tuner, how in kinds:
    found = tuner(
        space, objective="val_loss", directory=sys.argv[1], project_name=tuner.__name__, seed=1,
        distribution_strategy=strategy, **how,
    )
    found.oracle.max_trials = 2
    found.search(
        data.train.batches(16, 16), validation_data=data.validation.batches(16, 16), verbose=0
    )
    print("FOUND", [trial.status for trial in found.oracle.trials.values()])
"""


@pytest.mark.faults
def test_under_a_mirrored_strategy_on_two_devices(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path)],
        capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert found == ["FOUND ['COMPLETED', 'COMPLETED']"] * 2, done.stderr


def test_it_is_a_plain_hypermodel():
    space = TransferHyperModel("MobileNetV2", 3, name="space", tunable=False)
    assert isinstance(space, keras_tuner.HyperModel)
    assert space.name == "space"
    assert not space.tunable
    assert keras.Model not in type(space).__mro__
