import dataclasses

import keras
import numpy as np
import pytest

from kerastl.data.augment import AUGMENTATIONS
from kerastl.frozen.activations import image_size_of
from kerastl.frozen.report import StoreReport
from kerastl.frozen.store import ActivationStore
from kerastl.frozen.views import FLIP, PLAIN
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import freeze_to, inference_below, stages
from kerastl.model.optimizers import layerwise_optimizer
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.fine_tune import fine_tune
from kerastl.training.stored import store_phase, stored_views
from tests.training.small import small_backbone, small_data, unsettled

EPOCHS = 2


def recipe(augmentation="flip", **changes):
    phase = Phase("fine_tune", freeze_depth=1, epochs=EPOCHS, learning_rate=1e-3)
    return Recipe("test", (phase,), augmentation=augmentation, batch_size=16, seed=4, **changes)


def built(depth, name=None):
    """Build the same model again, of a small backbone or a real one, frozen to a depth."""
    keras.utils.set_random_seed(0)
    if name is None:
        model = build_transfer_model(small_backbone(), 3)
    else:
        model = build_transfer_model(name, 3, weights="random", image_size=32)
    head = model.get_layer("head")
    rng = np.random.default_rng(0)
    head.set_weights([rng.normal(size=w.shape) * 0.1 for w in head.get_weights()])
    return freeze_to(model, depth)


def compiled(trained, model, name):
    # Untrained and without BatchNormalization's help, ResNet50 blows small differences up.
    rate = 1e-6 if name == "ResNet50" else 1e-3
    optimizer = layerwise_optimizer(model, "sgd", learning_rate=rate)
    trained.compile(optimizer, "categorical_crossentropy", jit_compile=False)
    return trained


@pytest.mark.parametrize(
    ("name", "depth", "augmentation"),
    [
        (None, 1, "none"),
        (None, 1, "flip"),
        (None, 2, "flip"),
        pytest.param("MobileNetV2(alpha=0.35)", 5, "flip", marks=pytest.mark.slow),
        pytest.param("ResNet50", 4, "none", marks=pytest.mark.slow),
    ],
)
def test_training_from_the_store_is_training_the_whole_model(tmp_path, name, depth, augmentation):
    """Bit for bit the same weights: the same frozen prefix, views, order and steps.

    In ResNet50 TensorFlow fuses the frozen convolutions with their biases, which rounds otherwise.
    """
    made = recipe(augmentation)
    data = small_data() if name is None else small_data(size=32)
    whole = built(depth, name)
    batches = data.train.batches(
        image_size_of(whole), made.batch_size, shuffle=True, seed=made.seed, epochs=EPOCHS,
        augmentation=AUGMENTATIONS[augmentation], one_hot=True,
    )  # fmt: skip
    keras.utils.set_random_seed(1)
    with inference_below(whole, depth):
        compiled(whole, whole, name).fit(batches, shuffle=False, verbose=0)

    model = built(depth, name)
    stored = store_phase(
        model, data, made, depth=depth, epochs=EPOCHS, dtype="float32",
        store=ActivationStore(tmp_path), engine="tensorflow", report=StoreReport(),
    )  # fmt: skip
    keras.utils.set_random_seed(1)
    compiled(stored.suffix, model, name).fit(stored.train, shuffle=False, verbose=0)
    for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
        if name == "ResNet50":
            np.testing.assert_allclose(one, other, atol=1e-4)
        else:
            np.testing.assert_array_equal(one, other)


def test_a_second_run_starts_from_the_store(tmp_path):
    store, data = ActivationStore(tmp_path), unsettled(small_data())
    phases = (Phase("head", 2, "probe"), *recipe().phases)
    made = dataclasses.replace(recipe(), phases=phases)
    results = []
    for _ in range(2):
        model = built(1)
        results.append((fine_tune(model, data, recipe=made, store=store), model))
    first, second = results[0][0].store, results[1][0].store
    assert not first.from_store
    assert first.images_computed
    assert second.from_store
    assert second.seconds_saved > 0
    for one, other in zip(*(model.get_weights() for _, model in results), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_which_views_stand_in_for_an_augmentation():
    assert stored_views(recipe("none")) == [PLAIN]
    assert stored_views(recipe("flip")) == [PLAIN, FLIP]
    assert stored_views(recipe("light")) is None
    assert len(stored_views(recipe("light", views=3))) == 3
    assert stored_views(recipe("flip", mixup_alpha=0.2)) is None


def test_stored_random_views(tmp_path):
    data, model = small_data(), built(1)
    made = recipe("light", views=2)
    history = fine_tune(model, data, recipe=made, store=ActivationStore(tmp_path))
    assert history.store.images_computed == 2 * len(data.train) + len(data.validation)


def with_dropout():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dropout(0.1)(keras.layers.Conv2D(4, 3, 2)(inputs))
    return keras.Model(inputs, keras.layers.SpatialDropout2D(0.3)(keras.layers.ReLU()(x)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, 2), pytest.param("EfficientNetB0", 9, marks=pytest.mark.slow)],
)
def test_dropout_of_frozen_stages_is_off_and_comes_back(name, expected):
    how = {} if name is None else {"weights": "random", "image_size": 32}
    model = build_transfer_model(name or with_dropout(), 2, **how)
    kinds = (keras.layers.Dropout, keras.layers.SpatialDropout2D)
    layers = model.get_layer("backbone").layers
    dropouts = [layer for layer in layers if isinstance(layer, kinds)]
    rates = [layer.rate for layer in dropouts]
    assert len(rates) == expected
    assert all(rates)
    with inference_below(model, len(stages(model))):
        assert [layer.rate for layer in dropouts] == [0.0] * len(rates)
    assert [layer.rate for layer in dropouts] == rates
