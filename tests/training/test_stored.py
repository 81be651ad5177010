import dataclasses

import keras
import numpy as np
import pytest

from kerastl.data.augment import AUGMENTATIONS
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runtime import open_runtime
from kerastl.frozen.store import ActivationStore
from kerastl.frozen.views import FLIP, PLAIN
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import freeze_to, inference_below, stages
from kerastl.model.optimizers import layerwise_optimizer
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.fine_tune import fine_tune
from kerastl.training.stored import stored_phase, stored_views

EPOCHS = 2


def recipe(augmentation="flip", **changes):
    phase = Phase("fine_tune", freeze_depth=2, epochs=EPOCHS, learning_rate=1e-3)
    return Recipe("test", (phase,), augmentation=augmentation, batch_size=16, seed=4, **changes)


def built(backbone, depth):
    keras.utils.set_random_seed(0)
    if callable(backbone):
        model = build_transfer_model(backbone(), 3)
    else:
        model = build_transfer_model(backbone, 3, weights="random", image_size=32)
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
        ("MobileNetV2(alpha=0.35)", 4, "none"),
        ("MobileNetV2(alpha=0.35)", 5, "flip"),
        ("MobileNetV2(alpha=0.35)", 7, "flip"),
        ("ResNet50", 4, "none"),
    ],
)
def test_training_from_the_store_is_training_the_whole_model(
    shapes_data, tmp_path, name, depth, augmentation
):
    """Bit for bit the same weights: the same frozen prefix, views, order and steps.

    In ResNet50 TensorFlow fuses the frozen convolutions with their biases, which rounds otherwise.
    """
    made = recipe(augmentation)
    whole = built(name, depth)
    batches = shapes_data.train.batches(
        image_size_of(whole), made.batch_size, shuffle=True, seed=made.seed, epochs=EPOCHS,
        augmentation=AUGMENTATIONS[augmentation], one_hot=True,
    )  # fmt: skip
    keras.utils.set_random_seed(1)
    with inference_below(whole, depth):
        compiled(whole, whole, name).fit(batches, shuffle=False, verbose=0)

    model = built(name, depth)
    phase = dataclasses.replace(made.phases[0], freeze_depth=depth)
    runtime = open_runtime(ActivationStore(tmp_path), "tensorflow", made.batch_size)
    stored = stored_phase(model, shapes_data, made, phase, runtime, dtype="float32")
    keras.utils.set_random_seed(1)
    compiled(stored.network, model, name).fit(stored.train, shuffle=False, verbose=0)
    for one, other in zip(whole.get_weights(), model.get_weights(), strict=True):
        if name == "ResNet50":
            np.testing.assert_allclose(one, other, atol=1e-4)
        else:
            np.testing.assert_array_equal(one, other)


def test_a_second_run_starts_from_the_store(unsettled_data, tmp_path, tiny_backbone):
    store = ActivationStore(tmp_path)
    phases = (Phase("head", 4, "probe"), *recipe().phases)
    made = dataclasses.replace(recipe(), phases=phases)
    results = []
    for _ in range(2):
        model = built(tiny_backbone, 2)
        results.append((fine_tune(model, unsettled_data, recipe=made, store=store), model))
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


def test_stored_random_views(shapes_data, tmp_path, tiny_backbone):
    model = built(tiny_backbone, 2)
    made = recipe("light", views=2)
    history = fine_tune(model, shapes_data, recipe=made, store=ActivationStore(tmp_path))
    assert history.store.images_computed == 2 * len(shapes_data.train) + len(shapes_data.validation)


def test_dropout_of_frozen_stages_is_off_and_comes_back():
    model = build_transfer_model("EfficientNetB0", 2, weights="random", image_size=32)
    dropouts = [
        layer
        for layer in model.get_layer("backbone").layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    rates = [layer.rate for layer in dropouts]
    with inference_below(model, len(stages(model))):
        assert [layer.rate for layer in dropouts] == [0.0] * len(rates)
    assert [layer.rate for layer in dropouts] == rates
    assert len(rates) == 9
