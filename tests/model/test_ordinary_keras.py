"""What Keras has for models, tried with ours; `docs/keras.md` has the table of it."""

import copy

import keras
import numpy as np
import pytest
from keras import callbacks as keras_callbacks

from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import freeze_to
from kerastl.model.optimizers import OPTIMIZER_CLASSES, layerwise_optimizer
from kerastl.serving.export import export_model
from tests.training.small import SIZE, small_backbone

pytestmark = pytest.mark.slow

LOSS = "sparse_categorical_crossentropy"
LABELS = np.arange(24) % 3
PIXELS = np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3)).astype("uint8")
RATES = [1e-2, 1e-2, 5e-3]


@pytest.fixture
def model():
    return build_transfer_model(small_backbone(3), 3, freeze_depth=1, class_names=list("abc"))


def compiled(model, optimizer="adamw", **how):
    if isinstance(optimizer, str):
        optimizer = layerwise_optimizer(model, optimizer, learning_rate=1e-2)
    model.compile(optimizer, LOSS, metrics=["accuracy"], **how)
    return model


def fit(model, *callbacks, **how):
    held_out = (PIXELS, LABELS)
    return model.fit(
        PIXELS, LABELS, validation_data=held_out, epochs=2, verbose=0, callbacks=callbacks, **how
    )


def rates(optimizer):
    return [float(one.learning_rate) for one in optimizer.optimizers]


def test_callbacks(model, tmp_path):
    checkpoint = tmp_path / "best.keras"
    history = fit(
        compiled(model),
        keras_callbacks.EarlyStopping(patience=2, restore_best_weights=True),
        keras_callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9),
        keras_callbacks.ModelCheckpoint(str(checkpoint)),
        keras_callbacks.ModelCheckpoint(str(tmp_path / "w.weights.h5"), save_weights_only=True),
        keras_callbacks.BackupAndRestore(tmp_path / "backup", double_checkpoint=True),
        keras_callbacks.TerminateOnNaN(),
        keras_callbacks.TensorBoard(str(tmp_path / "logs")),
        keras_callbacks.CSVLogger(str(tmp_path / "log.csv")),
    )
    assert len(history.epoch) == 2
    found = rates(model.optimizer)
    assert found[0] < 1e-2
    assert found == pytest.approx([found[0], found[0], found[0] / 2])
    assert len(keras.saving.load_model(checkpoint).optimizer.optimizers) == 3


def test_moving_averages_of_weights(model):
    given = keras.optimizers.AdamW(1e-2, use_ema=True, ema_momentum=0.5)
    fit(compiled(model, layerwise_optimizer(model, given)), keras_callbacks.SwapEMAWeights())
    for one in model.optimizer.optimizers:
        pairs = zip(one._trainable_variables, one._model_variables_moving_average, strict=True)
        assert all(np.array_equal(weight, average) for weight, average in pairs)


@pytest.mark.parametrize("how", [{"jit_compile": True}, {"steps_per_execution": 2}])
def test_ways_to_compile(model, how):
    assert fit(compiled(model, **how)).history["loss"]


def test_gradient_accumulation(model):
    given = keras.optimizers.AdamW(1e-2, gradient_accumulation_steps=2)
    start = model.get_weights()
    compiled(model, layerwise_optimizer(model, given))
    model.fit(PIXELS, LABELS, batch_size=24, verbose=0)
    assert all(map(np.array_equal, start, model.get_weights()))  # one step of two
    model.fit(PIXELS, LABELS, batch_size=24, verbose=0)
    assert not all(map(np.array_equal, start, model.get_weights()))


@pytest.mark.sweep
@pytest.mark.parametrize("name", OPTIMIZER_CLASSES)
def test_optimizers_by_name(model, name):
    assert rates(compiled(model, name).optimizer) == pytest.approx(RATES)
    assert np.isfinite(fit(model).history["loss"]).all()


def test_distillation(model):
    student = build_transfer_model(small_backbone(2), 3, freeze_depth=0)
    distiller = keras.distillation.Distiller(
        teacher=compiled(model),
        student=student,
        distillation_losses=keras.distillation.LogitsDistillation(temperature=2.0),
    )
    before = student.get_weights()
    distiller.compile(optimizer=layerwise_optimizer(student), loss=LOSS)
    distiller.fit(PIXELS, LABELS, verbose=0)
    assert not all(map(np.array_equal, before, student.get_weights()))


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantisation(model, mode, tmp_path):
    before = fit(compiled(model)) and model.predict(PIXELS, verbose=0)
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    # The optimizer was made for the weights before: Keras warns of its state and leaves it out.
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(loaded.predict(PIXELS, verbose=0), before, atol=0.02)
    export_model(loaded, tmp_path / "served", class_names=list("abc"))


def test_lora(model, tmp_path):
    fit(compiled(model))
    model.get_layer("head").enable_lora(2)
    freeze_to(model, 2)
    fit(compiled(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(PIXELS, verbose=0)
    np.testing.assert_allclose(loaded.predict(PIXELS, verbose=0), expected, atol=1e-6)
    export_model(loaded, tmp_path / "served")


class OwnStep(keras.Model):
    steps = 0

    def train_step(self, data):
        OwnStep.steps += 1  # traced
        return super().train_step(data)


def test_a_train_step_of_the_user(model):
    around = OwnStep(model.inputs, model.outputs)
    fit(compiled(around, layerwise_optimizer(model, learning_rate=1e-2)))
    assert OwnStep.steps
    assert rates(around.optimizer) == pytest.approx(RATES)


def test_a_model_around_it(model, tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    around = keras.Model(inputs, model(inputs))
    fit(compiled(around, layerwise_optimizer(model, learning_rate=1e-2)))
    around.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert rates(loaded.optimizer) == pytest.approx(RATES)
    assert [len(one._trainable_variables) for one in loaded.optimizer.optimizers] == [2, 1, 1]


def test_copies(model):
    other = copy.deepcopy(compiled(model))
    assert rates(other.optimizer) == pytest.approx(RATES)
    np.testing.assert_array_equal(
        other.predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0)
    )
