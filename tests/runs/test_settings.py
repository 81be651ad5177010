import dataclasses
import json

import pytest

from kerastl.data.load import describe_source
from kerastl.data.options import DataOptions
from kerastl.errors import ArgumentError, DataError, WeightsError
from kerastl.model.recipes import make_recipe
from kerastl.runs.settings import RunSettings, SearchSettings, choose_backbone

RECIPE = make_recipe(
    "guide", num_stages=5, num_images=10, num_classes=2, backbone="ResNet50", weights="random",
    image_size=(96, 64), seed=7,
)  # fmt: skip


@pytest.fixture
def earlier(tmp_path):
    (tmp_path / "model.keras").touch()
    return str(tmp_path)


def test_what_is_left_out_is_filled_in():
    settings = RunSettings("flowers/")
    assert (settings.backbone, settings.weights) == ("MobileNetV2", "imagenet")
    assert (settings.scenario, settings.seed, settings.task) == ("auto", 0, "classification")
    assert dataclasses.replace(settings) == settings
    settings = RunSettings("flowers/", recipe=RECIPE)
    assert (settings.backbone, settings.weights) == ("ResNet50", "random")
    assert (settings.scenario, settings.seed, settings.image_size) == ("", 7, (96, 64))
    settings = RunSettings("flowers/", recipe=RECIPE, seed=3, image_size=128)
    assert (settings.seed, settings.image_size) == (3, (128, 128))
    assert SearchSettings("flowers/").scenario == "large_different"


def test_how_images_are_resized(tmp_path):
    of_old = RECIPE.to_dict()
    del of_old["resize"]
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": of_old}))
    padded = dataclasses.replace(RECIPE, resize="pad")

    def resize(**how):
        settings = RunSettings("flowers/", **how)
        assert settings.recipe_fields(10)["resize"] == settings.options.resize
        return settings.options.resize

    assert resize() == resize(recipe=RECIPE) == "crop"
    assert resize(task="multi_label") == "squash"
    assert resize(recipe=padded) == "pad"
    assert resize(recipe=padded, options=DataOptions(resize="crop")) == "crop"
    assert resize(recipe_path=str(tmp_path)) == "squash"


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("", "", ("MobileNetV2", "imagenet")),
        (None, "embedded", ("MobileNetV2(alpha=0.35)", "embedded")),
        ("ResNet50", None, ("ResNet50", "imagenet")),
        ("EARLIER", "", ("EARLIER", "model")),
        ("EARLIER", "random", ("EARLIER", "random")),
    ],
)
def test_the_backbone_and_its_weights(backbone, weights, expected, earlier):
    found = choose_backbone(earlier if backbone == "EARLIER" else backbone, weights)
    assert found == (earlier if expected[0] == "EARLIER" else expected[0], expected[1])


def test_an_earlier_run_in_place_of_the_backbone_of_a_recipe(earlier):
    assert choose_backbone(earlier, "", RECIPE) == (earlier, "model")
    assert choose_backbone("", "imagenet", RECIPE) == ("ResNet50", "imagenet")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"scenario": "smal_similar"}, ArgumentError, "Did you mean 'small_similar'"),
        ({"scenario": "guide", "recipe": RECIPE}, ArgumentError, "not both"),
        ({"recipe_path": "none.json"}, DataError, r"Cannot read .*none\.json"),
        ({"recipe": RECIPE, "task": "regression"}, ArgumentError, "pass --task classification"),
        ({"augmentation": "lots"}, ArgumentError, "augmentation"),
        ({"backbone": "MobilNetV2"}, ArgumentError, "Did you mean 'MobileNetV2'"),
        ({"backbone": "no/run"}, WeightsError, "no earlier model"),
        ({"epochs": 0}, ArgumentError, "epochs"),
        ({"batch_size": 0}, ArgumentError, "batch_size"),
        ({"patience": 0}, ArgumentError, "patience"),
        ({"learning_rate": 0.0}, ArgumentError, "learning_rate"),
        ({"freeze_depth": -1}, ArgumentError, "freeze_depth"),
        ({"validation_fraction": 1.0}, ArgumentError, "validation_fraction"),
        ({"seed": -2}, ArgumentError, "seed"),
        ({"on_bad": "drop"}, ArgumentError, "on_bad"),
        ({"image_sizes": (96, 128), "image_size": 96}, ArgumentError, "not both"),
        ({"image_sizes": (96, 128), "scenario": "guide"}, ArgumentError, "needs --scenario auto"),
        ({"image_sizes": (96, 128), "weights": "random"}, ArgumentError, "pretrained weights"),
    ],
)
def test_what_cannot_be_meant_is_told_without_images(values, error, message):
    with pytest.raises(error, match=message):
        RunSettings("no/such/folder", **values)


def test_of_a_search():
    with pytest.raises(ArgumentError, match="tuner"):
        SearchSettings("flowers/", tuner="grid")
    with pytest.raises(ArgumentError, match="max_trials"):
        SearchSettings("flowers/", max_trials=0)
    assert SearchSettings("flowers/", image_sizes=(96, 128)).image_sizes == (96, 128)


def test_what_a_resumed_run_is_compared_by():
    asked = RunSettings("flowers/", test="more/", recipe=RECIPE).to_dict()
    assert json.loads(json.dumps(asked)) == asked
    assert asked["recipe"] == RECIPE.to_dict()
    assert not {"data", "test", "on_bad", "recipe_path"} & set(asked)  # images may have moved
    assert RunSettings("moved/", recipe=RECIPE).to_dict() == asked


def test_sources_as_text(tmp_path):
    assert describe_source("tfds:beans") == "tfds:beans"
    assert describe_source(tmp_path) == str(tmp_path)
    assert describe_source(([], [])) == "arrays"
