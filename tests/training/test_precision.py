"""Training in mixed precision and with accumulated gradients, from recipes and by hand."""

import dataclasses

import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.model.optimizers import layerwise_optimizer
from kerastl.model.precision import in_full_precision, policies_of
from kerastl.model.recipes import Phase, Recipe
from kerastl.serving.export import export_model
from kerastl.training.fine_tune import fine_tune
from kerastl.training.oracles import SearchSpace
from kerastl.training.search import search
from tests.training.small import small_backbone, small_data

PROBE = Phase("head", freeze_depth=2, method="probe")
OPEN = Phase("fine_tune", freeze_depth=1, epochs=2, learning_rate=1e-3)
RECIPE = Recipe("test", (PROBE, OPEN), augmentation="none", batch_size=16)


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Engine 'openvino'")
def test_mixed_precision_trains_resumes_searches_and_exports(policy, tmp_path):
    data = small_data()
    backbone = small_backbone()
    model = build_transfer_model(backbone, 3, freeze_depth=0, class_names=list("abc"))
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for old, new in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    recipe = dataclasses.replace(RECIPE, accumulate=2)
    history = fine_tune(model, data, recipe=recipe, checkpoints=tmp_path / "states", verbose=False)
    assert np.isfinite(history.history["loss"]).all()
    space = SearchSpace(freeze_depths=(1, 2), learning_rates=(1e-3,), max_epochs=1)
    found = search(data, backbone, space=space, recipe=RECIPE, train_best=False, verbose=False)
    assert all(trial.is_completed for trial in found.trials)
    export_model(model, tmp_path / "served", formats=["saved_model", "litert", "litert_fp16"])
    assert policies_of(model) == {policy, "float32"}


def test_a_copy_in_full_precision_answers_alike(policy):
    inputs = keras.Input((8, 8, 3))
    x = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.ReLU()])(inputs)
    x = keras.layers.Reshape((-1, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(inputs, x, name="named")
    copy = in_full_precision(model)
    assert policies_of(copy) == {"float32"}
    assert copy.name == "named"
    assert in_full_precision(copy) is copy
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(copy(pixels), model(pixels), atol=0.05)


def test_accumulated_gradients_are_those_of_larger_batches():
    """Two steps of half a batch move the weights as one step of the whole."""
    data = small_data(
        32, validation_fraction=0.0, test=(np.zeros((3, 8, 8, 3), "uint8"), [0, 1, 2])
    )
    ended = []
    for accumulate, batch_size in ((1, 16), (2, 8)):
        keras.utils.set_random_seed(0)
        model = build_transfer_model(small_backbone(), 3)
        phase = dataclasses.replace(
            OPEN, optimizer="sgd", schedule="constant", warmup=0.0, epochs=1, freeze_depth=2
        )
        recipe = Recipe(
            "test", (phase,), augmentation="none", batch_size=batch_size, accumulate=accumulate
        )
        fine_tune(model, data, recipe=recipe, verbose=False)
        ended.append(model.get_layer("head").get_weights()[0])
    np.testing.assert_allclose(*ended, atol=1e-6)
    assert np.abs(ended[0]).max() > 1e-4


@pytest.mark.parametrize("changes", [{"accumulate": 0}, {"precision": "float16"}])
def test_what_is_no_precision_and_no_number_of_steps(changes):
    with pytest.raises(ArgumentError, match=next(iter(changes))):
        dataclasses.replace(RECIPE, **changes)


def test_a_loss_scale_optimizer_of_the_user_is_kept():
    model = build_transfer_model(small_backbone(), 3, freeze_depth=0)
    given = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=8.0)
    made = layerwise_optimizer(model, given, layer_decay=0.5)
    assert type(made) is keras.optimizers.LossScaleOptimizer
    assert made.initial_scale == 8.0
    rates = [float(one.learning_rate) for one in made.inner_optimizer.optimizers]
    assert rates == pytest.approx([0.1, 0.1, 0.05])
    made.learning_rate = 0.2
    assert float(made.inner_optimizer.optimizers[2].learning_rate) == pytest.approx(0.1)
    assert not given.inner_optimizer.built
