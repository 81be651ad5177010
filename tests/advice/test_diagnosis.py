import dataclasses
import json
import math
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kerastl._task import DEFAULT_TASK, find_task
from kerastl.advice import diagnosis
from kerastl.advice.advise import advise
from kerastl.advice.diagnosis import diagnose
from kerastl.advice.sample import sample_of
from kerastl.data.load import load_data
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.frozen import extraction
from kerastl.frozen.store import ActivationStore
from kerastl.model.build import build_transfer_model
from kerastl.model.kept_words import origin_of
from kerastl.model.recipes import Recipe
from kerastl.runs.plan import diagnosis_to_dict
from kerastl.training.fine_tune import checked_recipe

TASK = find_task(DEFAULT_TASK)
SMALL = "MobileNetV2(alpha=0.35)"
# At 160 pixels the shift of photographs is 0.04, at 96 it is 0.09: small images look unlike.
SIZE, MAX_IMAGES = 160, 100


@pytest.fixture(scope="module")
def some_of(shared_file, tmp_path_factory):
    """A function to a folder with so many training images a class of a set, and 8 to test on."""

    def extract(name: str, per_class: int) -> Path:
        root = tmp_path_factory.mktemp(name)
        with zipfile.ZipFile(shared_file(f"data/{name}.zip")) as archive:
            names = [n for n in archive.namelist() if n.lower().endswith(".jpg")]
            for folder in sorted({n.rsplit("/", 1)[0] for n in names}):
                count = per_class if "/train/" in folder else 8
                own = sorted(n for n in names if n.startswith(folder + "/"))
                archive.extractall(root, own[:: max(1, len(own) // count)][:count])
        return root / name

    return extract


@pytest.fixture(scope="module")
def model(imagenet_weights):
    return build_transfer_model(SMALL, 2, weights=str(imagenet_weights), image_size=SIZE)


@pytest.fixture(scope="module")
def photographs(some_of):
    return load_data(str(some_of("hymenoptera", 70)), class_names=["ants", "bees"])


@pytest.fixture(scope="module")
def of_photographs(model, photographs):
    return diagnose(model, photographs)


def remember_statistics(backbone, images):
    """Let the BatchNormalization layers of a tiny backbone remember what these images give."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = np.asarray(keras.Model(backbone.inputs[0], layer.input)(images))
            layer.moving_mean.assign(values.mean((0, 1, 2)))
            layer.moving_variance.assign(values.var((0, 1, 2)))


def pixels_of(split, size=32):
    return np.concatenate(list(split.images(size).as_numpy_iterator())).astype("float32")


@pytest.fixture(scope="module")
def of_many(tiny_backbone):
    """Twenty thousand small images, unlike those whose statistics the network remembers."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = (
        rng.integers(0, 100, (20_000, 4, 4, 3)) + 120 * (np.arange(20_000) % 2)[:, None, None, None]
    )
    data = load_data(
        (images.astype("uint8"), np.arange(20_000) % 2), test_fraction=0.0, validation_fraction=0.0
    )
    backbone = tiny_backbone()
    remember_statistics(backbone, rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"))
    return diagnose(build_transfer_model(backbone, 2), data, max_images=40)


@pytest.fixture(scope="module")
def of_hands(some_of, imagenet_weights):
    hands = load_data(str(some_of("sign_language_digits", 15)))
    return diagnose(SMALL, hands, weights=imagenet_weights, image_size=SIZE, max_images=MAX_IMAGES)


@pytest.fixture(scope="module")
def of_clothes(shared_file, imagenet_weights):
    with np.load(shared_file("data/fashion_mnist.npz")) as file:
        clothes = load_data((file["x_train"], file["y_train"]), test_fraction=0.0)
    return diagnose(
        SMALL, clothes, weights=imagenet_weights, image_size=SIZE, max_images=MAX_IMAGES
    )


def test_ants_and_bees_are_few_and_similar(of_photographs):
    assert of_photographs.scenario == "small_similar"
    assert of_photographs.probability > 0.5
    assert of_photographs.images_per_class == {"ants": 59, "bees": 60}
    assert of_photographs.evidence.source_share is None  # a file without its top
    assert of_photographs.different < 0.3
    assert of_photographs.evidence.num_images == 119
    assert of_photographs.large < 0.1
    assert of_photographs.trustworthy
    assert len(of_photographs.profile) == of_photographs.num_stages == 7
    accuracies = [stage.score for stage in of_photographs.profile]
    assert accuracies[-1] > 0.75 > accuracies[0]
    assert of_photographs.warnings == ()


@pytest.mark.slow
def test_cats_and_dogs_are_similar_and_the_imagenet_head_knows_them(some_of, shared_file):
    data = load_data(str(some_of("cats_vs_dogs_subset", 60)))
    shared_file("weights/mobilenet_7_5_224_tf.h5")
    weights = shared_file("weights/mobilenet_7_5_224_tf_no_top.h5")
    found = diagnose("MobileNet(alpha=0.75)", data, weights=weights, image_size=SIZE)
    assert found.scenario == "small_similar"
    assert found.different < 0.3
    assert not found.in_between
    assert found.evidence.source_share > 0.4
    assert "The ImageNet classifier explains" in str(found)


@pytest.mark.slow
def test_hand_signs_are_few_and_different(of_hands):
    assert of_hands.scenario == "small_different"
    assert of_hands.different > 0.7
    assert of_hands.num_sampled == MAX_IMAGES
    assert of_hands.evidence.num_images > MAX_IMAGES


@pytest.mark.slow
def test_clothes_are_many_and_different(of_clothes):
    assert of_clothes.scenario == "large_different"
    assert of_clothes.large >= 0.9
    assert of_clothes.different > 0.7
    assert of_clothes.evidence.num_images == 51_000
    assert of_clothes.num_sampled == MAX_IMAGES
    assert sum(of_clothes.images_per_class.values()) == 51_000

    assert of_clothes.median_side == 28
    assert any("28 pixels or less" in text for text in of_clothes.warnings)


def test_many_images_with_other_statistics_are_large_and_different(of_many):
    assert of_many.scenario == "large_different"
    assert of_many.large >= 0.9
    assert of_many.different > 0.7
    assert of_many.evidence.num_images == 20_000
    assert of_many.num_sampled == 40
    assert of_many.images_per_class == {"0": 10_000, "1": 10_000}


def test_images_of_fewer_pixels_are_warned_of(of_many, of_photographs):
    assert of_many.median_side == 4
    assert any("4 pixels or less" in text for text in of_many.warnings)
    assert of_photographs.median_side > SIZE


def test_few_images_with_the_remembered_statistics_are_small_and_similar(
    tiny_backbone, shapes_data
):
    keras.utils.set_random_seed(0)
    backbone = tiny_backbone()
    remember_statistics(backbone, pixels_of(shapes_data.train))
    found = diagnose(build_transfer_model(backbone, 3), shapes_data)
    assert found.scenario == "small_similar"
    assert found.different < 0.1
    assert found.shift.overall < 0.01
    assert not any("preprocessing" in text for text in found.warnings)


def test_the_wrong_scale_of_a_small_network_is_reported(tiny_backbone, shapes_data):
    """A network of raw pixels that is given a hundred times as much."""
    keras.utils.set_random_seed(0)
    backbone = tiny_backbone()
    remember_statistics(backbone, pixels_of(shapes_data.train))
    images = keras.Input((32, 32, 3))
    wrong = keras.Model(images, backbone(keras.layers.Rescaling(100.0)(images)))
    found = diagnose(build_transfer_model(wrong, 3), shapes_data)
    assert any("preprocessing is probably wrong" in text for text in found.warnings)


def test_what_the_imagenet_head_explains_is_part_of_the_evidence(shapes_data, monkeypatch):
    labels = shapes_data.train.labels

    def probabilities(embeddings):
        assert len(embeddings) == len(labels)
        return np.eye(1000)[labels * 7]

    def head(backbone, weights, *, image_size):
        assert (backbone, weights, image_size) == ("MobileNet(alpha=0.25)", "random", (32, 32))
        return probabilities

    monkeypatch.setattr(diagnosis, "source_head", head)
    model = build_transfer_model("MobileNet(alpha=0.25)", 3, weights="random", image_size=32)
    found = diagnose(model, shapes_data)
    assert found.evidence.source_share > 0.9
    assert found.different < 0.5
    assert "The ImageNet classifier explains" in str(found)


@pytest.mark.slow
def test_sixty_images_are_few(model, photographs):
    sixty = dataclasses.replace(photographs, train=photographs.train.subset(np.arange(30, 90)))
    found = diagnose(model, sixty)
    assert found.evidence.num_images == 60
    assert found.large < 0.1
    assert found.scenario.startswith("small")


def with_labels(data, labels):
    return dataclasses.replace(data, train=Split(data.train.source, labels, data.num_classes))


def test_noise_labels_are_not_to_be_trusted(model, photographs):
    """The activations are those of the right labels, so this costs no pass."""
    labels = np.random.default_rng(3).permutation(photographs.train.labels)
    found = diagnose(model, with_labels(photographs, labels))
    assert 1 - found.evidence.probe_error == pytest.approx(0.5, abs=0.13)
    assert not found.trustworthy
    assert any("a guess (0.50)" in text for text in found.warnings)
    assert found.curve.quadrupled.error > 0.3
    assert found.curve.error(found.curve.num_images) - found.curve.a < 0.2
    reasons = {reason.name: reason for reason in advise(found).reasons}
    assert reasons["trust"].value == "none"
    assert reasons["trust"].why
    assert found.to_dict()["probe"]["above_chance"] is False


@pytest.mark.slow
def test_wrong_preprocessing_is_reported(imagenet_weights, photographs):
    """A model that scales pixels to 0-1 and then takes them for 0-255."""
    base = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=str(imagenet_weights)
    )
    images = keras.Input((SIZE, SIZE, 3))
    wrong = keras.Model(images, base(keras.layers.Rescaling(1 / 127.5 / 255, -1)(images)))
    found = diagnose(build_transfer_model(wrong, 2), photographs, max_images=40)
    assert any("preprocessing is probably wrong" in text for text in found.warnings)


@pytest.mark.slow
def test_copies_across_the_split_are_counted(model, photographs, tmp_path):
    """Six training images, stored again as JPEG of quality 60, between eight others."""
    for part, split in (("train", photographs.train), ("test", photographs.test)):
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            folder = tmp_path / part / photographs.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    for path in photographs.train.paths[::20]:
        folder = tmp_path / "val" / Path(path).parent.name
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").save(folder / f"copy_{Path(path).name}", quality=60)
    for path in photographs.validation.paths[:8]:
        shutil.copy(path, tmp_path / "val" / "ants")
    found = diagnose(model, load_data(str(tmp_path)))
    assert found.warnings == (
        "6 of 14 validation images look like images in another part too, so the validation "
        "figures are too good",
    )


def test_to_dict_is_plain(of_photographs, of_many):
    for found in (of_photographs, of_many):
        plain = found.to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert {"scenario", "probability", "size", "similarity", "profile", "warnings"} <= set(
            plain
        )
        assert plain["size"]["num_images"] == found.evidence.num_images
        assert plain["similarity"]["batch_norm_shift"] == found.shift.overall
        assert len(plain["profile"]) == found.num_stages
        assert len(plain["similarity"]["layers"]) == len(found.shift.layers)
        whole = diagnosis_to_dict(found, advise(found))
        assert {"recipe", "summary", "reasons", "alternatives"} == set(whole["advice"])
        json.dumps(whole, allow_nan=False)


def test_a_layer_of_dead_channels_has_no_contrast_in_json(of_photographs):
    shift = of_photographs.shift
    dead = dataclasses.replace(shift.layers[0], contrast=math.nan)
    shift = dataclasses.replace(shift, layers=(dead, *shift.layers[1:]))
    plain = dataclasses.replace(of_photographs, shift=shift).to_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["similarity"]["layers"][0]["contrast"] is None


def test_as_text(of_photographs, of_many):
    lines = str(of_photographs).splitlines()
    assert lines[0].startswith("Scenario: small, similar (")
    assert lines[0].endswith(f"({of_photographs.probability:.0%} sure).")
    assert lines[1] == "Size: 119 training images, 2 classes, 60 per class."
    assert "expected with 238 images" in lines[2]
    assert lines[3].startswith("Similarity: BatchNormalization shift 0.")
    assert lines[-1].startswith("Linear probe by stage (accuracy): 0.")
    assert "Size: 20,000 training images, 2 classes, 10000 per class." in str(of_many)
    assert str(of_many).splitlines()[-1].startswith("Warning: ")


def test_in_between_is_said(of_photographs):
    unsure = dataclasses.replace(of_photographs, different=0.5)
    assert unsure.in_between
    assert "sure, between similar and different)" in str(unsure)
    assert "not clear" in str(advise(unsure))


@pytest.fixture
def tiny_model(tiny_backbone):
    keras.utils.set_random_seed(0)
    return build_transfer_model(tiny_backbone(), 3)


def test_a_second_diagnosis_comes_from_the_store(tiny_model, shapes_data, tmp_path, monkeypatch):
    store = ActivationStore(tmp_path)
    first = diagnose(tiny_model, shapes_data, store=store)

    def refuse(*args, **kwargs):
        raise AssertionError("nothing is left to compute")

    monkeypatch.setattr(extraction, "make_engine", refuse)
    monkeypatch.setattr(extraction, "_latest_engine", {})
    assert diagnose(tiny_model, shapes_data, store=store) == first
    with pytest.raises(AssertionError, match="nothing is left"):
        diagnose(tiny_model, shapes_data, store=None)


def test_no_more_images_are_looked_at_than_asked_for(tiny_model, shapes_data, monkeypatch):
    seen = []

    def count(split, *args, **kwargs):
        seen.append(len(split))
        return images(split, *args, **kwargs)

    images = Split.images
    monkeypatch.setattr(Split, "images", count)
    many = dataclasses.replace(
        shapes_data, validation=Split(shapes_data.train.source, shapes_data.train.labels, 3)
    )
    found = diagnose(tiny_model, many, max_images=12, store=None)
    assert found.num_sampled == 12
    assert max(seen) == 12
    assert found.evidence.num_images == len(shapes_data.train)


def test_a_sample_keeps_the_shares_of_the_classes(shapes_data):
    train = shapes_data.train
    assert sample_of(TASK, train, len(train), 0) is train
    some = sample_of(TASK, train, 30, 0)
    assert np.bincount(some.labels).tolist() == [10, 10, 10]
    assert np.array_equal(some.labels, sample_of(TASK, train, 30, 0).labels)


def test_a_network_without_batch_normalization(shapes_data):
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    for filters in (8, 16, 24):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    found = diagnose(build_transfer_model(keras.Model(images, x), 3), shapes_data)
    assert found.shift is None
    assert found.evidence.shift is None
    assert "no BatchNormalization statistics to compare" in str(found)
    plain = found.to_dict()["similarity"]
    assert plain["batch_norm_shift"] is None
    assert plain["layers"] == []


def test_statistics_that_were_never_trained_are_no_evidence(tiny_model, shapes_data):
    found = diagnose(tiny_model, shapes_data)
    assert found.shift is None
    assert found.in_between


def test_a_class_with_few_images_is_warned_of(tiny_model, shapes_data):
    labels = shapes_data.train.labels
    rows = np.concatenate([np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:5]])
    found = diagnose(
        tiny_model, dataclasses.replace(shapes_data, train=shapes_data.train.subset(rows))
    )
    assert any("Classes with few images: blue (5)." in text for text in found.warnings)


def test_many_classes_with_few_images_are_counted(tiny_backbone):
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3)).astype("uint8")
    names = [f"kind {index}" for index in range(12)]
    data = load_data((images, np.arange(60) % 12), class_names=names)
    found = diagnose(build_transfer_model(tiny_backbone(), 12), data)
    (text,) = [text for text in found.warnings if text.startswith("Classes with few images")]
    assert "kind 9 (" in text
    assert "and 2 more" in text
    assert found.curve is None or found.curve.a >= 0


def test_a_class_without_training_images(tiny_backbone, shapes_data):
    data = dataclasses.replace(
        shapes_data,
        train=Split(shapes_data.train.source, shapes_data.train.labels, 4),
        class_names=[*shapes_data.class_names, "white"],
    )
    found = diagnose(build_transfer_model(tiny_backbone(), 4), data)
    assert found.images_per_class["white"] == 0
    assert any("white (0)" in text for text in found.warnings)


def test_a_backbone_by_name(shapes_data):
    found = diagnose(SMALL, shapes_data, weights="embedded")
    assert found.image_size == (64, 64)
    assert found.evidence.source_share is None
    assert found.shift is not None
    assert not any("pixels or less" in text for text in found.warnings)  # half of 64 is 32


def test_the_imagenet_head_has_no_say_of_a_cut_backbone(shapes_data, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("these are not its embeddings")

    monkeypatch.setattr(diagnosis, "source_head", refuse)
    name = "MobileNet(alpha=0.25)"
    model = build_transfer_model(name, 3, weights="random", image_size=32, cut=2)
    assert diagnose(model, shapes_data).evidence.source_share is None


@pytest.mark.parametrize("max_images", [0, 1, 2.5])
def test_arguments_are_checked(tiny_model, shapes_data, max_images):
    with pytest.raises(ArgumentError, match="`max_images` must be an int of at least 2"):
        diagnose(tiny_model, shapes_data, max_images=max_images)


@pytest.mark.parametrize("kind", ["name", "file", "model"])
def test_the_recipe_names_what_a_loaded_model_was_built_from(
    kind, tiny_backbone, shapes_data, tmp_path
):
    """What `recipe.json` holds builds the same network."""
    file, saved = tmp_path / "mine.keras", tmp_path / "saved.keras"
    tiny_backbone().save(file)
    backbone = {"file": str(file), "model": tiny_backbone()}.get(kind, "MobileNet(alpha=0.25)")
    of_name = {"weights": "random", "image_size": 32, "cut": 2}
    how = of_name if kind == "name" else {"head": "stages"}
    model = build_transfer_model(backbone, 3, **how)
    model.save(saved)
    loaded = keras.saving.load_model(saved)
    assert origin_of(loaded) == origin_of(model)
    recipe = advise(diagnose(loaded, shapes_data)).recipe
    recipe = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert (recipe.head, recipe.image_size) == (how.get("head", "linear"), (32, 32))
    assert recipe.weights == how.get("weights", "model")
    if kind == "model":
        assert recipe.backbone == backbone.name
        return
    again = build_transfer_model(
        recipe.backbone, 3, weights=recipe.weights, image_size=recipe.image_size, head=recipe.head,
        cut=recipe.cut,
    )  # fmt: skip
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert checked_recipe(dataclasses.replace(recipe, batch_size=8), again, shapes_data)
