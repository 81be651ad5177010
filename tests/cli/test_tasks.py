"""Several labels an image, and numbers, from a table to what is served."""

import base64
import csv
import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import average_precision_score, mean_absolute_error

import kerastl
from kerastl.errors import ArgumentError
from tests.command import kerastl as command
from tests.conftest import once_for_all_workers

PATCHES = {"blue": (4, 4), "green": (4, 18), "red": (18, 4)}
TABLES = {"multi_label": "labels.csv", "regression": "values.csv"}
COLOURS = {"blue": (20, 20, 250), "green": (20, 250, 20), "red": (250, 20, 20)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Noise with patches of three colours: `labels.csv` names them, `values.csv` counts red.

    `patches.keras` is a random backbone of four stages that tells the colours apart.
    """

    def make(root):
        root.mkdir()
        write_tables(root)
        keras.utils.set_random_seed(0)
        inputs = keras.Input((32, 32, 3))
        x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
        for filters, strides in ((16, 2), (24, 2), (32, 1), (48, 1)):
            x = keras.layers.Conv2D(filters, 3, strides, padding="same")(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        keras.Model(inputs, x).save(root / "patches.keras")

    return once_for_all_workers(tmp_path_factory, "tasks", make)


def write_tables(root):
    rng = np.random.default_rng(0)
    labels, values = [], []
    for index in range(90):
        pixels = rng.integers(0, 60, (32, 32, 3)).astype("uint8")
        present = [name for name in PATCHES if rng.random() < 0.45]
        side = int(rng.integers(3, 12))
        for name in present:
            top, left = PATCHES[name]
            pixels[top : top + side, left : left + side] = COLOURS[name]
        Image.fromarray(pixels).save(root / f"{index:02}.png")
        labels.append((f"{index:02}.png", "|".join(present)))
        values.append((f"{index:02}.png", pixels.mean(), pixels[..., 0].mean()))
    for name, header, rows in (
        ("labels.csv", ("path", "label"), labels),
        ("values.csv", ("path", "brightness", "red"), values),
    ):
        with open(root / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])


def rows_of(output):
    return list(csv.DictReader((output / "predictions.csv").read_text("utf-8").splitlines()))


class Trained(NamedTuple):
    """A run, and what its commands told."""

    output: Path
    metrics: dict
    stderr: str
    exported: dict


@pytest.fixture(scope="session")
def trained(folder, run_once):
    """A function from a task to a run on that backbone, with a SavedModel and a LiteRT file.

    `train` writes the SavedModel of the labels, and `export` that of the numbers.
    """

    def train(task):
        table, by_train = folder / TABLES[task], task == "multi_label"
        place, told = run_once(
            f"{task}_run",
            lambda own: [
                "train", table, "--task", task, "--backbone", folder / "patches.keras", "--output",
                own / "run", "--json",
            ],
            exports=by_train,
        )  # fmt: skip
        how = ["--output", place / "litert"] if by_train else ["--format", "saved_model"]
        _, exported = run_once(
            f"{task}_export",
            lambda _: [
                "export", place / "run", "--format", "litert", "--data", table, "--json", *how
            ],
        )  # fmt: skip
        found = json.loads(told.stdout), told.stderr, json.loads(exported.stdout)
        return Trained(place / "run", *found)

    return train


@pytest.fixture
def labelled(trained):
    return trained("multi_label")


@pytest.fixture
def valued(trained):
    return trained("regression")


def test_several_labels_are_learned(labelled):
    output, metrics, stderr, _ = labelled
    assert "A linear probe on the frozen network has mAP 0.9" in stderr
    assert metrics["recipe"]["task"] == "multi_label"
    assert metrics["test"]["mean_average_precision"] > 0.9
    assert (output / "report.html").is_file()
    assert (output / "labels.txt").read_text() == "blue\ngreen\nred\n"
    rows = rows_of(output)
    truth = np.array([[n in row["label"].split("|") for n in PATCHES] for row in rows])
    scores = np.array([[float(row[f"probability of {n}"]) for n in PATCHES] for row in rows])
    expected = average_precision_score(truth, scores, average="macro")
    assert metrics["test"]["mean_average_precision"] == pytest.approx(expected)


def test_numbers_are_learned(valued):
    output, metrics, *_ = valued
    assert metrics["recipe"]["task"] == "regression"
    assert metrics["recipe"]["augmentation"] == "none"
    assert metrics["test"]["r2"] > 0.5
    rows = rows_of(output)
    errors = [
        mean_absolute_error(*([float(row[f"{kind} {name}"]) for row in rows] for kind in kinds))
        for name in ("brightness", "red")
        for kinds in (("true", "predicted"),)
    ]
    assert metrics["test"]["mean_absolute_error"] == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("which", ["labelled", "valued"])
def test_the_page_and_the_card_speak_of_the_task(which, request):
    output = request.getfixturevalue(which).output
    page = (output / "report.html").read_text(encoding="utf-8")
    card = (output / "MODEL_CARD.md").read_text(encoding="utf-8")
    wanted = "mAP" if which == "labelled" else "MAE"
    assert wanted in page
    assert wanted in card
    assert "Confusion" not in page
    assert page.count('aria-label="brightness: predictions') == (which == "valued")
    assert "Fitted in closed form, without epochs. loss " in page
    command("report", output)


@pytest.mark.parametrize("which", ["labelled", "valued"])
def test_predict_and_evaluate(which, request, folder):
    output = request.getfixturevalue(which).output
    table, key = ("labels.csv", "labels") if which == "labelled" else ("values.csv", "values")
    stdout, _ = command("predict", output, folder / "00.png", folder / "01.png", "--json")
    model = keras.saving.load_model(output / "model.keras", compile=False)
    images = np.stack([np.asarray(Image.open(folder / f"0{i}.png")) for i in range(2)])
    expected = model.predict_on_batch(images.astype("float32"))
    for row, outputs in zip(json.loads(stdout)["predictions"], expected, strict=True):
        told = {one["label" if key == "labels" else "target"]: one for one in row[key]}
        if key == "labels":
            assert set(told) == {n for n, p in zip(PATCHES, outputs, strict=True) if p > 0.5}
        else:
            got = [told[name]["value"] for name in ("brightness", "red")]
            np.testing.assert_allclose(got, outputs, rtol=1e-4)
    for format_ in ("csv", "jsonl", "table"):
        command("predict", output, folder / "00.png", "--format", format_)
    if key == "values":
        _, error = command("predict", output, folder / "00.png", "--top", 1, status=2)
        assert "this model predicts all targets" in error
    stdout, _ = command("evaluate", output, folder / table, "--json")
    assert "intervals" in stdout


@pytest.mark.parametrize("which", ["labelled", "valued"])
def test_export_answers_as_the_model(which, request, folder):
    output, _, _, told = request.getfixturevalue(which)
    saved = output / "saved_model" / "1"
    rows = told["artifacts"] + json.loads((saved / "parity.json").read_text())["artifacts"]
    assert {row["artifact"] for row in rows} >= {"serving_bytes", "litert"}
    assert all(row["largest_difference"] < 1e-3 for row in rows)
    loaded = tf.saved_model.load(str(saved))
    images = np.stack([np.asarray(Image.open(folder / f"0{i}.png")) for i in range(3)])
    model = keras.saving.load_model(output / "model.keras", compile=False)
    expected = model.predict_on_batch(images.astype("float32"))
    pixels = tf.constant(images, tf.float32)
    files = tf.constant([(folder / f"0{i}.png").read_bytes() for i in range(3)])
    for got in (
        loaded.signatures["serving_default"](image=pixels),
        loaded.signatures["serving_bytes"](image_bytes=files),
    ):
        if which == "labelled":
            np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
            assert got["present"].numpy().tolist() == (expected > 0.5).tolist()
            assert got["label"].numpy()[1].tolist() == [b"blue", b"green", b"red"]
        else:
            np.testing.assert_allclose(got["values"], expected, rtol=1e-4)
            assert got["target"].numpy()[0].tolist() == [b"brightness", b"red"]
    stdout, _ = command("predict", saved, folder / "00.png", "--json")
    direct, _ = command("predict", output, folder / "00.png", "--json")
    assert (
        json.loads(stdout)["predictions"][0].keys() == json.loads(direct)["predictions"][0].keys()
    )


@pytest.mark.parametrize("which", ["labelled", "valued"])
def test_the_server_answers_in_both_dialects(which, request, folder):
    pytest.importorskip("httpx2", reason="the test client needs httpx2")
    pytest.importorskip("prometheus_client", reason="needs kerastl[serve]")
    from starlette.testclient import TestClient

    from kerastl.serving.repository import Repository
    from kerastl.serving.server import make_app
    from kerastl.serving.service import ServerLimits, Service

    output = request.getfixturevalue(which).output
    repository = Repository(output / "saved_model")
    repository.start()
    model = keras.saving.load_model(output / "model.keras", compile=False)
    content = (folder / "00.png").read_bytes()
    expected = model.predict_on_batch(np.asarray(Image.open(folder / "00.png"), "float32")[None])[0]
    data = [base64.b64encode(content).decode()]
    asked = {"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": data}]}
    with TestClient(make_app(Service("m", repository, ServerLimits()))) as client:
        first = client.post(
            "/v1/models/m:predict",
            json={"signature_name": "serving_bytes", "instances": [{"b64": data[0]}]},
        ).json()["predictions"][0]
        second = client.post("/v2/models/m/infer", json=asked).json()["outputs"]
    second = {one["name"]: one["data"] for one in second}
    numbers, names = ("probabilities", "label") if which == "labelled" else ("values", "target")
    wanted = sorted(PATCHES) if which == "labelled" else ["brightness", "red"]
    for answer in (first, second):
        np.testing.assert_allclose(answer[numbers], expected, rtol=1e-3, atol=1e-5)
        assert answer[names] == wanted
        if which == "labelled":
            assert answer["present"] == (expected > 0.5).tolist()


def test_augmentation_is_the_users_where_given(folder, tmp_path, without_exports):
    stdout, _ = command(
        "train", folder / "values.csv", "--task", "regression", "--backbone",
        folder / "patches.keras", "--augmentation", "flip", "--output", tmp_path / "run", "--json",
    )  # fmt: skip
    assert json.loads(stdout)["recipe"]["augmentation"] == "flip"
    _, error = command("train", folder / "values.csv", "--augmentation", "flop", status=2)
    assert "`augmentation` must be one of 'none', 'flip'" in error


def fitting(data, backbone, weights, depths):
    """Return a function that trains by gradients, with mixup: from options to model and history."""
    phases = (
        kerastl.Phase("head", depths[0], "probe"),
        kerastl.Phase("open", depths[1], epochs=2, learning_rate=1e-3),
    )
    recipe = kerastl.Recipe("mine", phases, task=data.task, mixup_alpha=0.2, batch_size=16)

    def fit(**how):
        keras.utils.set_random_seed(0)
        model = kerastl.build_transfer_model(
            backbone, data.num_classes, weights=weights, task=data.task
        )
        history = kerastl.fine_tune(model, data, recipe=recipe, verbose=False, **how).history
        assert np.isfinite(history["val_loss"]).all()
        return model

    return fit


class Stop(keras.callbacks.Callback):
    """Stops a training after its first epoch, if that is wanted."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted = wanted

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and self.wanted:
            raise KeyboardInterrupt


def check_learned(model, data):
    found = kerastl.evaluate(model, data.test)
    if data.task == "multi_label":
        assert found["mean_average_precision"] > 0.8
        return
    assert found["r2"] > 0.3  # in the units of the data
    batches = data.test.batches(model.input_shape[1:3])
    compiled = model.evaluate(batches, return_dict=True, verbose=0)
    assert compiled["mean_absolute_error"] == pytest.approx(found["mean_absolute_error"], rel=1e-3)


@pytest.mark.slow
def test_open_stages_learn_labels(folder):
    data = kerastl.load_data(str(folder / "labels.csv"), task="multi_label", seed=0)
    fit = fitting(data, str(folder / "patches.keras"), "imagenet", (4, 2))
    check_learned(fit(), data)


@pytest.mark.faults
def test_open_stages_learn_numbers_and_a_killed_training_ends_alike(folder, tmp_path):
    data = kerastl.load_data(str(folder / "values.csv"), task="regression", seed=0)
    fit = fitting(data, str(folder / "patches.keras"), "imagenet", (4, 2))
    model = fit()
    check_learned(model, data)
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=tmp_path, callbacks=lambda phase: [Stop(wanted=True)])
    again = fit(checkpoints=tmp_path, callbacks=lambda phase: [Stop(wanted=False)])
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("task", TABLES)
def test_open_stages_of_the_embedded_network_learn(folder, task):
    data = kerastl.load_data(str(folder / TABLES[task]), task=task, seed=0)
    check_learned(fitting(data, "MobileNetV2(alpha=0.35)", "embedded", (7, 5))(), data)


def test_what_goes_by_classes_says_so(folder, labelled):
    data = kerastl.load_data(str(folder / "labels.csv"), task="multi_label")
    model = kerastl.build_transfer_model(str(folder / "patches.keras"), 3)
    with pytest.raises(ArgumentError, match="task"):
        kerastl.fine_tune(model, data)
    with pytest.raises(ArgumentError, match="task"):
        kerastl.evaluate(model, data.test)


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("multi_label", ("label", "probability")),
        ("regression", ("target", "value")),
    ],
)
def test_labels_and_numbers_are_explained(folder, trained, task, keys, tmp_path):
    told = command(
        "explain", trained(task).output, folder / "00.png", "--output", tmp_path, "--json"
    )
    (row,) = json.loads(told.stdout)["explanations"]
    assert {*keys, "path", "method", "stage", "overlay"} == set(row)
    assert Path(row["overlay"]).parent == tmp_path
    assert Path(row["overlay"]).is_file()


def test_a_map_of_numbers_is_refused(valued):
    model = keras.saving.load_model(valued.output / "model.keras", compile=False)
    with pytest.raises(ArgumentError, match="takes task='classification' or task='multi_label'"):
        kerastl.ClassMapper(model)


def test_a_recipe_of_another_task_is_refused(folder, labelled, tmp_path):
    _, error = command(
        "train", folder / "values.csv", "--recipe", labelled.output, "--output", tmp_path, status=2
    )
    assert "pass --task multi_label" in " ".join(error.replace("│", " ").split())


@pytest.mark.slow
def test_a_chain_of_two_tasks_is_compared_and_so_is_its_transfer(folder, tmp_path):
    step = '[[step]]\nname = "{}"\ndata = "{}"\ntask = "{}"\nepochs = 1\n'
    steps = [("values", "regression"), ("labels", "multi_label")]
    file = tmp_path / "steps.toml"
    file.write_text(
        f'backbone = "{folder / "patches.keras"}"\n'
        + "".join(step.format(name, folder / f"{name}.csv", task) for name, task in steps)
    )
    found = json.loads(command("chain", file, "--output", tmp_path / "chain", "--json").stdout)
    assert [step["measure"] for step in found["steps"]] == ["R²", "mAP"]
    assert len(found["arms"]) == 2
    assert all(0 < arm["score"] <= 1 for arm in found["arms"])
    run = tmp_path / "chain" / "2-labels"
    command("report", run, "--transfer", "--scratch")
    arms = json.loads((run / "transfer.json").read_text())["arms"]
    assert {"head_only", "from_scratch"} <= {arm["name"] for arm in arms}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Was the transfer worth it?" in page
    assert "mAP on 18 test images" in page
