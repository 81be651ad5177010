import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import freeze_to
from kerastl.model.optimizers import layerwise_optimizer, scaled_rate

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
LABELS = np.arange(8) % 2


@pytest.fixture
def model():
    inputs = keras.Input((32, 32, 3))
    x = inputs
    for filters in (4, 8, 16, 32, 64):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", activation="relu")(x)
    model = build_transfer_model(keras.Model(inputs, x), 2)
    return freeze_to(model, 0)


def rates(model):
    return [float(one.learning_rate) for one in model.optimizer.optimizers]


def fit(model, optimizer, epochs=2, **arguments):
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(IMAGES, LABELS, batch_size=4, epochs=epochs, verbose=0, **arguments)


def test_each_stage_has_its_rate(model):
    optimizer = layerwise_optimizer(model, "adam", learning_rate=0.1, layer_decay=0.5)
    assert [one.name for one in optimizer.optimizers][:2] == [
        "head",
        "stage_" + str(len(optimizer.optimizers) - 2),
    ]
    got = [float(one.learning_rate) for one in optimizer.optimizers]
    assert got == pytest.approx([0.1] + [0.1 * 0.5**k for k in range(len(got) - 1)])


def test_a_step_of_sgd_moves_each_stage_by_its_rate(model):
    """Against brute force: one full-batch step of each stage is its rate times the gradient."""
    optimizer = layerwise_optimizer(model, "sgd", learning_rate=0.2, layer_decay=0.25)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(LABELS, model(IMAGES, training=True))
        loss = keras.ops.mean(losses)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    before = [v.numpy() for v in variables]
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(IMAGES, LABELS, batch_size=8, verbose=0)
    rate_of = {}
    for one in optimizer.optimizers:
        rate_of |= {v.path: float(one.learning_rate) for v in one._trainable_variables}
    for variable, gradient, old in zip(variables, gradients, before, strict=True):
        expected = old - rate_of[variable.path] * gradient.numpy()
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("schedule", [lambda epoch: 0.01, lambda epoch, rate: rate * 0.5])
def test_learning_rate_scheduler_keeps_the_ratios(model, schedule):
    optimizer = layerwise_optimizer(model, learning_rate=0.02, layer_decay=0.5)
    fit(model, optimizer, 1, callbacks=[keras.callbacks.LearningRateScheduler(schedule)])
    got = rates(model)
    assert got == pytest.approx([0.01] + [0.01 * 0.5**k for k in range(len(got) - 1)])


def test_reduce_on_plateau_keeps_the_ratios(model):
    optimizer = layerwise_optimizer(model, learning_rate=0.02, layer_decay=0.5)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    fit(model, optimizer, 3, callbacks=[plateau])
    got = rates(model)
    assert got[0] < 0.02
    assert got == pytest.approx([got[0]] + [got[0] * 0.5**k for k in range(len(got) - 1)])


def test_setting_the_rate_moves_all(model):
    optimizer = layerwise_optimizer(model, learning_rate=0.02, layer_decay=0.5)
    optimizer.learning_rate = 0.2
    assert float(optimizer.learning_rate) == pytest.approx(0.2)
    assert float(optimizer.optimizers[2].learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "schedule",
    [
        keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=1e-2, warmup_steps=2),
        keras.optimizers.schedules.ExponentialDecay(1e-2, 3, 0.5),
        keras.optimizers.schedules.PolynomialDecay(1e-2, 5, 1e-3),
        keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [1e-2, 1e-3, 1e-4]),
        keras.optimizers.schedules.InverseTimeDecay(1e-2, 3, 0.5),
        keras.optimizers.schedules.CosineDecayRestarts(1e-2, 3),
    ],
)
def test_schedules_keep_the_ratios(schedule):
    scaled = scaled_rate(schedule, 0.125)
    assert type(scaled) is type(schedule)
    for step in range(12):
        assert float(scaled(step)) == pytest.approx(0.125 * float(schedule(step)), rel=1e-5)


def test_a_schedule_that_cannot_be_scaled():
    class Odd(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

        def get_config(self):
            return {}

    with pytest.raises(ArgumentError, match="The schedule Odd has none of the known rates"):
        scaled_rate(Odd(), 0.5)


def test_decoupled_weight_decay_is_scaled_and_spares_biases(model):
    """With a zero gradient AdamW moves a kernel by rate * decay * kernel and nothing else."""
    optimizer = layerwise_optimizer(
        model, "adamw", learning_rate=0.1, layer_decay=0.5, weight_decay=0.1
    )
    variables = model.trainable_variables
    for variable in variables:
        if variable.path.endswith("bias"):
            variable.assign(keras.ops.ones_like(variable))
    before = {v.path: v.numpy() for v in variables}
    optimizer.apply([keras.ops.zeros_like(v) for v in variables], variables)
    for one in optimizer.optimizers:
        for variable in one._trainable_variables:
            decay = 0.0 if variable.path.endswith("bias") else float(one.learning_rate) * 0.1
            np.testing.assert_allclose(
                variable.numpy(), before[variable.path] * (1 - decay), atol=1e-6
            )


def test_saved_and_reloaded_it_is_plain_keras(model, tmp_path):
    fit(model, layerwise_optimizer(model, "adamw", learning_rate=0.02, layer_decay=0.5))
    before = rates(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.MultiOptimizer
    assert all(type(one) is keras.optimizers.AdamW for one in loaded.optimizer.optimizers)
    assert rates(loaded) == pytest.approx(before)
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) > 0
    for old, new in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "adma"}, "Did you mean"),
        ({"optimizer": 3}, "or a Keras optimizer"),
        ({"layer_decay": 0.0}, "`layer_decay` must be a number above 0"),
        ({"layer_decay": 1.5}, "at most 1"),
        ({"learning_rate": 0}, "`learning_rate` must be a number above 0"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        layerwise_optimizer(model, **arguments)


def test_a_used_optimizer_is_refused(model):
    used = keras.optimizers.SGD()
    used.build(model.trainable_variables)
    with pytest.raises(ArgumentError, match="was already used to train a model"):
        layerwise_optimizer(model, used)


def test_nothing_to_train(model):
    model.trainable = False
    with pytest.raises(ArgumentError, match="No weight of the model is trainable"):
        layerwise_optimizer(model)
