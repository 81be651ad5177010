import dataclasses

import keras
import numpy as np
import pytest

from kerastl.data.options import PixelRules
from kerastl.errors import ArgumentError
from kerastl.frozen.fingerprint import network_hash
from kerastl.frozen.prefixes import embedding_network
from kerastl.model.build import build_transfer_model
from kerastl.model.heads import head_of, set_linear_head
from kerastl.model.kept_rules import remember_rules, rules_of
from kerastl.model.kept_words import class_names_of
from kerastl.model.recipe_changes import with_epochs
from kerastl.model.recipes import make_recipe
from kerastl.training.fine_tune import fine_tune


@pytest.mark.parametrize(
    ("kind", "dropout", "layers"),
    [
        ("linear", 0.0, ["Dense"]),
        ("linear", 0.2, ["Dropout", "Dense"]),
        ("mlp", 0.0, ["Dense", "Dense"]),
        ("mlp", 0.5, ["Dropout", "Dense", "Dropout", "Dense"]),
        ("mlp:16,8", 0.0, ["Dense", "Dense", "Dense"]),
        (keras.layers.Dense(16, "gelu"), 0.2, ["Dropout", "Dense", "Dropout", "Dense"]),
        (keras.Sequential([keras.layers.Dense(8, "tanh")]), 0.0, ["Sequential", "Dense"]),
    ],
)
def test_heads(tiny_backbone, tmp_path, kind, dropout, layers):
    model = build_transfer_model(tiny_backbone(), 3, head=kind, dropout=dropout)
    assert [layer.name for layer in model.layers][1:] == ["preprocess", "backbone", "pool", "head"]
    head = model.get_layer("head")
    assert [type(layer).__name__ for layer in getattr(head, "layers", [head])] == layers
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(model.predict(images, verbose=0), 1 / 3, atol=1e-6)
    model.fit(images, np.arange(4) % 3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-6
    )


def test_a_probe_starts_a_linear_head_alone(tiny_backbone, shapes_data):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(24, 3)), rng.normal(size=3)
    linear = build_transfer_model(tiny_backbone(), 3, dropout=0.5)
    set_linear_head(linear, kernel, bias)
    x = rng.normal(size=(5, 24)).astype("float32")
    scores = np.exp(x @ kernel + bias)
    expected = scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(np.asarray(linear.get_layer("head")(x)), expected, rtol=1e-4)
    hidden = build_transfer_model(tiny_backbone(), 3, head="mlp")
    of_linear = make_recipe("small_similar", num_stages=4, num_images=82, num_classes=3)
    for attempt in (
        lambda: set_linear_head(hidden, kernel, bias),
        lambda: fine_tune(hidden, shapes_data, recipe=of_linear),
    ):
        with pytest.raises(ArgumentError, match=r"this model has a hidden layer\. Build"):
            attempt()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("linear", "linear"), ("stages", "stages"), ("mlp", "mlp"), ("mlp:512", "mlp"),
        ("mlp:16,8", "mlp:16,8"), (keras.layers.Dense(16, "tanh"), "mlp"),
        (keras.layers.Activation("relu"), "mlp"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_name_of_a_head_is_found_again(tiny_backbone, head, name, dropout):
    assert head_of(build_transfer_model(tiny_backbone(), 3, head=head, dropout=dropout)) == name


@pytest.mark.parametrize("value", ["mlp:", "mlp:0", "mlp:8,", "mlp:8;4", "mlp:1e3", "mpl", 5])
def test_what_is_no_head(tiny_backbone, value):
    with pytest.raises(ArgumentError, match="head"):
        build_transfer_model(tiny_backbone(), 3, head=value)
    with pytest.raises(ArgumentError, match="head"):
        make_recipe("guide", num_stages=4, num_images=82, num_classes=3, head=value)


@pytest.mark.parametrize(("name", "head"), [("fastai", "mlp"), ("small_similar", "mlp:32,16")])
def test_hidden_layers_train_from_the_store(tiny_backbone, shapes_data, name, head):
    keras.utils.set_random_seed(0)
    model = build_transfer_model(tiny_backbone(), 3, head=head, dropout=0.2)
    recipe = make_recipe(name, num_stages=4, num_images=82, num_classes=3, head=head)
    recipe = dataclasses.replace(with_epochs(recipe, 4), augmentation="flip")
    history = fine_tune(model, shapes_data, recipe=recipe, verbose=False)
    assert history.store.images_computed or history.store.images_found
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert history.history["val_loss"][-1] < np.log(3)


NAMES = ["ants", "a.*|b [", "h\u00e9/\\d", "two\nlines: x", "head"]


@pytest.mark.parametrize("head", ["linear", "stages", "mlp"])
def test_class_names_are_saved_loaded_and_cloned(head, tiny_backbone, tmp_path):
    model = build_transfer_model(tiny_backbone(), len(NAMES), class_names=NAMES, head=head)
    assert rules_of(model) == PixelRules(resize="crop")
    for rules in (PixelRules(12), PixelRules(16, "crop")):  # the last one stays
        remember_rules(model, rules)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for other in (model, loaded, keras.models.clone_model(model)):
        assert class_names_of(other) == NAMES
        assert rules_of(other) == rules
    assert not hasattr(loaded, "class_names")
    nameless = build_transfer_model(tiny_backbone(), len(NAMES), head=head)
    nameless.set_weights(model.get_weights())
    remember_rules(nameless, PixelRules(resize="pad"))
    assert rules_of(keras.models.clone_model(nameless)) == PixelRules(resize="pad")
    assert class_names_of(nameless) is None
    first, second = (embedding_network(one) for one in (model, nameless))
    assert network_hash(first) == network_hash(second)  # what is stored of one serves the other
    assert class_names_of(build_transfer_model(tiny_backbone(), 2)) is None
    assert class_names_of(tiny_backbone()) is None
    loaded.class_names = list("abcde")
    assert class_names_of(loaded) == list("abcde")
