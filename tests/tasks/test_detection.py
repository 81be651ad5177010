"""Objects: what cells are taught, what maps stand for, how it is measured, and a whole run."""

import dataclasses
import io
import json
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import kerastl
from kerastl._task import find_task
from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError
from kerastl.frozen.runtime import open_runtime
from kerastl.frozen.store import ActivationStore
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import backbone_of, batch_normalizations, freeze_to
from kerastl.model.recipes import make_recipe
from kerastl.serving.artifacts import SavedModel
from kerastl.tasks._average_precision import match, measure_boxes
from kerastl.tasks._boxes import DetectorLoss, box_overlap, detect, differences, targets_of
from kerastl.training.fine_tune import fine_tune
from kerastl.training.phases import phase_batches
from tests.conftest import build_tiny_backbone

TASK = find_task("detection")
NAMES = ["blue", "red"]
NO_BOX = [-1, -1, -1, -1, -1]


def scenes(count, seed=0, side=32):
    """Images of one or two rectangles, blue or red, on dark noise, and their boxes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, side, side, 3)).astype("uint8")
    boxes = np.full((count, 2, 5), -1, "float32")
    for image, rows in zip(images, boxes, strict=True):
        for place in range(rng.integers(1, 3)):
            width, height = rng.integers(side // 5, side // 2, 2)
            x, y = rng.integers(0, side - width), rng.integers(0, side - height)
            number = rng.integers(2)
            image[y : y + height, x : x + width] = [(40, 40, 220), (220, 40, 40)][number]
            rows[place] = [*(np.array([x, y, x + width, y + height]) / side), number]
    return images, boxes


def backbone():
    keras.utils.set_random_seed(0)
    return build_tiny_backbone()


@pytest.fixture(scope="module")
def data():
    return load_data((scenes(40), scenes(16, seed=1)), task="detection", class_names=NAMES)


def model_of():
    return build_transfer_model(backbone(), 2, task="detection", class_names=NAMES)


@pytest.fixture(scope="module")
def model():
    return model_of()


def recipe_of(model, scenario="small_similar"):
    sizes = {"num_stages": len(kerastl.stages(model)), "num_images": 40, "num_classes": 2}
    return make_recipe(scenario, **sizes, task="detection", batch_size=8)


def maps_of(boxes, number, side=8, num_classes=2):
    """The maps that answer boxes exactly, each in the cell of its centre."""
    maps = np.zeros((1, side, side, num_classes + 4), "float32")
    for (left, top, right, bottom), kind in zip(boxes, number, strict=True):
        column, row = int((left + right) / 2 * side), int((top + bottom) / 2 * side)
        x, y = (column + 0.5) / side, (row + 0.5) / side
        maps[0, row, column, kind] = 0.9
        maps[0, row, column, num_classes:] = [x - left, y - top, right - x, bottom - y]
    return maps


def test_cells_by_hand():
    labels = np.array([[[0.0, 0.0, 1.0, 1.0, 0], [0.5, 0.5, 0.75, 0.75, 1], NO_BOX]], "float32")
    found = targets_of(keras.ops.convert_to_tensor(labels), 4, 4, 2)
    centres, weights, boxes = (np.asarray(one) for one in found)
    # The middle of the first lies on the corner of four cells, and belongs to the last of them.
    assert np.argwhere(centres[0] == 1).tolist() == [[2, 2, 0], [2, 2, 1]]
    # 0.09 of a side of 4 cells is 0.36; a cell beside has exp(-1 / (2 * 0.36**2)).
    np.testing.assert_allclose(centres[0, 2, 1, 0], np.exp(-1 / (2 * 0.36**2)), rtol=1e-5)
    np.testing.assert_allclose(boxes[0, 2, 2], labels[0, 1, :4])  # the smaller one
    assert weights[0, 2, 2] == 1
    assert weights[0, 0, 0] == 0
    nothing = targets_of(keras.ops.convert_to_tensor(labels[:, 2:]), 4, 4, 2)
    assert not np.asarray(nothing.centres).any()
    assert not np.asarray(nothing.weights).any()


def test_maps_stand_for_their_boxes():
    boxes = [(0.1, 0.2, 0.5, 0.9), (0.55, 0.05, 0.95, 0.4)]
    maps = maps_of(boxes, [1, 0])
    maps[0, 1, 1] = [0.9, 0.01, 0.1, 0.1, 0.1, 0.1]  # another, at the same score
    answers = detect(maps).numpy()[0]
    kept = answers[answers[:, 5] >= 0]
    assert len(kept) == 3
    for box, number in zip(boxes, [1, 0], strict=True):
        nearest = kept[np.abs(kept[:, :4] - box).max(1).argmin()]
        np.testing.assert_allclose(nearest, [*box, 0.9, number], atol=1e-6)
    assert (answers[3:] == [0, 0, 0, 0, 0, -1]).all()
    labels = np.array([[[*boxes[0], 1], [*boxes[1], 0]]], "float32")
    exact, shifted = maps_of(boxes, [1, 0]), maps_of(boxes, [1, 0])
    shifted[..., 2:] *= 1.3
    both = [DetectorLoss()(labels, one) for one in (exact, shifted)]
    assert float(both[0]) < float(both[1])
    assert float(box_overlap(labels, exact)[0]) > float(box_overlap(labels, shifted)[0])


def test_of_two_that_overlap_the_surer_is_kept():
    maps = np.zeros((1, 8, 8, 6), "float32")
    maps[0, 4, 2, 0], maps[0, 4, 4, 0] = 0.9, 0.8
    maps[0, 4, 2, 2:], maps[0, 4, 4, 2:] = [0.3, 0.3, 0.55, 0.3], [0.55, 0.3, 0.3, 0.3]
    assert (detect(maps).numpy()[0, :, 5] >= 0).sum() == 1
    maps[0, 4, 4, :2] = [0, 0.8]  # of another class
    assert (detect(maps).numpy()[0, :, 5] >= 0).sum() == 2


@pytest.mark.parametrize("places", [[0], [1], [0, 1]])
def test_differences_are_seen(places):
    one = detect(maps_of([(0.1, 0.2, 0.5, 0.9), (0.55, 0.05, 0.95, 0.4)], [1, 0])).numpy()
    assert TASK.difference(one.reshape(-1, 6), one[:, ::-1].reshape(-1, 6)) == 0
    other = one.copy()
    other[0, places, 2] += 0.01
    assert TASK.difference(other.reshape(-1, 6), one.reshape(-1, 6)) == pytest.approx(0.01)
    other[0, places] = [0, 0, 0, 0, 0, -1]
    assert differences(other, one).max() == pytest.approx(0.9)


def random_answers(seed=0):
    """Labels of 12 images, and answers near some of them."""
    rng = np.random.default_rng(seed)
    _, labels = scenes(12, seed)
    answers = np.zeros((12, 100, 6), "float32")
    answers[..., 5] = -1
    for rows, told in zip(labels, answers, strict=True):
        near = [row[:4] + rng.normal(0, 0.03, 4) for row in rows if row[4] >= 0]
        false = [sorted(rng.uniform(0, 0.5, 2)) + sorted(rng.uniform(0.5, 1, 2)) for _ in range(3)]
        for place, box in enumerate([*near, *false]):
            told[place] = [*box, rng.uniform(0.1, 1), rng.integers(2)]
    return labels, answers


def test_measures_are_those_of_coco():
    from pycocotools.cocoeval import COCOeval

    labels, answers = random_answers()
    found = measure_boxes(labels, answers, 2)
    judges = []
    accumulate = COCOeval.accumulate

    def evaluated(judge, *how):
        accumulate(judge, *how)
        judges.append(judge)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COCOeval, "evaluate", _also(COCOeval.evaluate, evaluated))
        match(labels, answers, 2)
    precision = judges[0].eval["precision"][..., 0, -1]  # overlaps, recalls, classes
    assert found["ap"] == pytest.approx(precision.mean())
    assert found["ap50"] == pytest.approx(precision[0].mean())
    assert found["ap75"] == pytest.approx(precision[5].mean())
    for number, row in enumerate(found["classes"]):
        assert row["ap"] == pytest.approx(precision[..., number].mean())
        assert row["ap_interval"][0] <= row["ap"] <= row["ap_interval"][1]
    low, high = found["intervals"]["ap50"]
    assert 0 <= low < found["ap50"] < high <= 1


def _also(first, then):
    def both(judge):
        first(judge)
        then(judge)

    return both


def test_what_is_not_there_is_not_measured():
    labels, answers = random_answers()
    found = measure_boxes(labels, answers, 3)  # no object of the third class
    assert found["classes"][2]["ap"] is None
    assert found["ap"] == measure_boxes(labels, answers, 2)["ap"]
    answers[..., 5] = -1
    assert measure_boxes(labels, answers, 2)["ap"] == 0


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(ArgumentError, match=r"pip install 'kerastl\[detection\]'"):
        measure_boxes(*random_answers(), 2)


@pytest.mark.parametrize("augmentation", ["flip", "light"])
def test_boxes_move_with_their_images(augmentation, data, model, tmp_path):
    """As pixels and as stored maps alike, by the seed and the epoch."""
    recipe = dataclasses.replace(recipe_of(model), augmentation=augmentation, views=2)
    phase = dataclasses.replace(recipe.phases[0], epochs=2)
    runtime = open_runtime(ActivationStore(tmp_path), "tensorflow", 8)
    how = {"shuffle": True, "epochs": 2}
    batches = [
        data.train.batches(32, 8, **how, augmentation=AUGMENTATIONS[augmentation]),
        phase_batches(model, data, recipe, phase, runtime).train,
        data.train.batches(32, 8, **how),
    ]
    of_pixels, stored, plain = (np.concatenate([y for _, y in one]) for one in batches)
    np.testing.assert_allclose(of_pixels, stored, atol=1e-6)
    moved = (of_pixels != plain).any((1, 2))
    assert 0.2 < moved.mean() < (0.8 if augmentation == "flip" else 1.01)
    kept = of_pixels[of_pixels[..., 4] >= 0]
    assert ((kept[:, :4] >= 0) & (kept[:, :4] <= 1)).all()
    assert (kept[:, 2:4] > kept[:, :2]).all()
    # What is inside a box is of its colour, wherever it has moved.
    for image, (left, top, right, bottom, number) in zip(
        np.concatenate([x for x, _ in batches[0]]), of_pixels[:, 0], strict=True
    ):
        if number >= 0:
            middle = image[int((top + bottom) * 16), int((left + right) * 16)]
            others = of_pixels[:, 1]
            assert middle.argmax() == (2, 0)[int(number)] or (others[..., 4] >= 0).any()


def test_the_model(model, tmp_path):
    assert [layer.name for layer in model.layers] == ["image", "preprocess", "backbone", "head"]
    assert [tuple(one.shape[1:3]) for one in backbone_of(model).outputs] == [(4, 4), (2, 2)]
    assert model.output_shape == (None, 4, 4, 6)
    assert 20_000 < model.get_layer("head").count_params() < 200_000
    for depth in (0, len(kerastl.stages(model))):
        freeze_to(model, depth)
        assert not any(one.trainable for one in batch_normalizations(backbone_of(model)))
        assert all(one.trainable for one in batch_normalizations(model.get_layer("head")))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    images, _ = scenes(2)
    np.testing.assert_allclose(loaded.predict_on_batch(images), model.predict_on_batch(images))
    # Its backbone serves other models, and those of other tasks serve it.
    classifier = build_transfer_model(loaded, 3)
    assert build_transfer_model(classifier, 2, task="detection").output_shape[1:3] == (4, 4)


@pytest.mark.slow
def test_a_run(data, tmp_path):
    """Trained, measured, resumed, predicted in pixels of the image, and the same as exported."""
    backbone().save(tmp_path / "backbone.keras")
    run = kerastl.train(
        data, str(tmp_path / "backbone.keras"), output=tmp_path / "run", epochs=6, batch_size=4,
        verbose=False,
    )  # fmt: skip
    assert run.task == "detection"
    with zipfile.ZipFile(tmp_path / "run" / "model.keras") as saved:  # loads without kerastl
        assert b"DetectorLoss" not in saved.read("config.json")
    found = run.metrics["test"]
    losses = [float(row["val_loss"]) for row in run.history]
    assert losses[-1] < losses[0]
    assert run.evaluate(data)["ap"] == pytest.approx(found["ap"], abs=1e-4)
    assert "AP50" in repr(run.evaluate(data))
    assert run.headline().startswith("test AP ")
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "objects in images" in page
    certificate = json.loads((tmp_path / "run" / "saved_model" / "1" / "parity.json").read_text())
    for row in certificate["artifacts"]:
        assert row["largest_difference"] <= row["tolerance"]

    images, _ = scenes(3, seed=2)
    files = [_png(image, (128, 96)) for image in images]
    answers = run.predict(files)
    (surest,) = answers.rows(1)[0]["objects"]
    assert surest["label"] in NAMES
    served = SavedModel(tmp_path / "run" / "saved_model" / "1")
    assert served.task is TASK
    told = served.classify_files([*files, b"no image"])
    np.testing.assert_allclose(told["boxes"][:3], answers.outputs[..., :4], atol=1e-2)
    np.testing.assert_allclose(told["scores"][:3], answers.outputs[..., 4], atol=1e-5)
    np.testing.assert_allclose(told["boxes"][0, 0], surest["box"], atol=1e-2)
    assert TASK.describe_outputs(TASK.told_answers(told)[0], NAMES, 1) == [
        {**surest, "score": pytest.approx(surest["score"], abs=1e-5),
         "box": pytest.approx(surest["box"], abs=1e-2)}
    ]  # fmt: skip
    assert told["label"][0, 0].decode() == surest["label"]
    assert told["valid"].tolist() == [True, True, True, False]
    assert not told["boxes"][3].any()
    assert (told["class_id"][3] == -1).all()
    pixels = served.run("serving_default", image=images.astype("float32"))
    np.testing.assert_allclose(pixels["boxes"], pixels["detections"][..., :4] * 32, atol=1e-4)


def _png(image, size):
    file = io.BytesIO()
    Image.fromarray(image).resize(size).save(file, "png")
    return file.getvalue()


class Stopped(Exception):
    """Stands for a kill."""


class _StopAfter(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise Stopped


@pytest.mark.slow
def test_it_ends_the_same_when_it_was_stopped(data, tmp_path):
    weights = []
    for stops in (False, True):
        model = model_of()
        how = {"recipe": recipe_of(model, "large_similar"), "epochs": 2, "verbose": False}
        how["checkpoints"] = tmp_path / f"{stops}"
        if stops:
            with pytest.raises(Stopped):
                fine_tune(model, data, callbacks=[_StopAfter()], **how)
            model = model_of()
        history = fine_tune(model, data, **how)
        weights.append(model.get_weights())
    assert len(history.history["loss"]) == 4
    assert {"loss", "box_overlap", "val_loss", "val_box_overlap"} <= set(history.history)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def _vit():
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))


REFUSED = {
    "a probe": (lambda data, model: kerastl.diagnose(model, data), "takes task='classification'"),
    "a search": (lambda data, model: kerastl.search(data, backbone()), "Compare the measures"),
    "an explanation": (
        lambda data, model: kerastl.explain(model, data.test.source.images[:1]), "See the boxes"
    ),
    "other formats": (
        lambda data, model: kerastl.export_model(model, "nowhere", formats=["onnx"]), "saved_model"
    ),
    "a crop": (
        lambda data, model: load_data(scenes(4), task="detection", resize="crop"), "Leave `resize`"
    ),
    "mixup": (
        lambda data, model: make_recipe(
            "large_similar", num_stages=3, num_images=9, num_classes=2, task="detection",
            mixup_alpha=0.1,
        ),
        "cannot be mixed",
    ),
    "another head": (
        lambda data, model: build_transfer_model(backbone(), 2, task="detection", head="mlp"),
        "the head is the task's own",
    ),
    "a vector": (
        lambda data, model: build_transfer_model(_vit(), 2, task="detection"), "must end in maps"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, data, model):
    call, told = REFUSED[name]
    with pytest.raises(ArgumentError, match=told):
        call(data, model)


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        (np.zeros((3, 4)), "must be numbers"),
        ([[[0, 0, 32, 16, 0]]] * 3, "Divide pixels by the width"),
        ([[[0.5, 0.5, 0.5, 0.9, 0]]] * 3, "have an area"),
        ([[NO_BOX]] * 3, "No image to train on has a box"),
        ([[[0.1, 0.1, 0.5, 0.9, 2]]] * 3, "`class_names` must name each class"),
    ],
)
def test_boxes_of_arrays_are_checked(boxes, told):
    images, _ = scenes(3)
    with pytest.raises(DataError, match=told):
        load_data(
            (images, np.array(boxes, "float32")), task="detection", class_names=NAMES,
            test_fraction=0.0,
        )  # fmt: skip
