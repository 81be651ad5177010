"""Several labels an image, and numbers, from a table to what is served."""

import base64
import csv
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import average_precision_score, mean_absolute_error
from typer.testing import CliRunner

import kerastl
from kerastl.cli import app as application
from kerastl.errors import ArgumentError, KerastlError

PATCHES = {"blue": (8, 8), "green": (8, 36), "red": (36, 8)}
COLOURS = {"blue": (20, 20, 250), "green": (20, 250, 20), "red": (250, 20, 20)}


@pytest.fixture(autouse=True)
def _keep_tensorflow_as_it_is(monkeypatch):
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise with patches of three colours: `labels.csv` names them, `values.csv` counts red."""
    root, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    labels, values = [], []
    for index in range(90):
        pixels = rng.integers(0, 60, (64, 64, 3)).astype("uint8")
        present = [name for name in PATCHES if rng.random() < 0.45]
        side = int(rng.integers(6, 24))
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
    return root


def run_command(*arguments, status=0):
    result = CliRunner().invoke(application.app, [str(argument) for argument in arguments])
    error = result.exception
    got = error.exit_status if isinstance(error, KerastlError) else result.exit_code
    assert got == status, (result.output, error)
    return result.stdout, str(error) if isinstance(error, KerastlError) else result.stderr


def rows_of(output):
    return list(csv.DictReader((output / "predictions.csv").read_text("utf-8").splitlines()))


def train(folder, table, task, *options):
    output = folder / f"{task}{len(options)}"
    stdout, stderr = run_command(
        "train", folder / table, "--task", task, "--weights", "embedded", "--output", output,
        "--json", *options,
    )  # fmt: skip
    return output, json.loads(stdout), stderr


@pytest.fixture(scope="module")
def labelled(folder):
    return train(folder, "labels.csv", "multi_label")


@pytest.fixture(scope="module")
def valued(folder):
    return train(folder, "values.csv", "regression")


def test_several_labels_are_learned(labelled):
    output, metrics, stderr = labelled
    assert "by the number of images: diagnoses are of classification alone" in stderr
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
    output, metrics, _ = valued
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
    output, _, _ = request.getfixturevalue(which)
    page = (output / "report.html").read_text(encoding="utf-8")
    card = (output / "MODEL_CARD.md").read_text(encoding="utf-8")
    wanted = "mAP" if which == "labelled" else "MAE"
    assert wanted in page
    assert wanted in card
    assert "Confusion" not in page
    assert page.count('aria-label="brightness: the answers') == (which == "valued")
    assert "One fit, without epochs. loss " in page
    run_command("report", output)


@pytest.mark.parametrize("which", ["labelled", "valued"])
def test_predict_and_evaluate(which, request, folder):
    output, _, _ = request.getfixturevalue(which)
    table, key = ("labels.csv", "labels") if which == "labelled" else ("values.csv", "values")
    stdout, _ = run_command("predict", output, folder / "00.png", folder / "01.png", "--json")
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
        run_command("predict", output, folder / "00.png", "--format", format_)
    if key == "values":
        _, error = run_command("predict", output, folder / "00.png", "--top", 1, status=2)
        assert "a regression tells all its values" in error
    stdout, _ = run_command("evaluate", output, folder / table, "--json")
    assert "intervals" in stdout


@pytest.mark.parametrize("which", ["labelled", "valued"])
def test_export_answers_as_the_model(which, request, folder):
    output, _, _ = request.getfixturevalue(which)
    stdout, _ = run_command(
        "export", output, "--format", "saved_model", "--format", "litert", "--json",
        "--data", folder / ("labels.csv" if which == "labelled" else "values.csv"),
    )  # fmt: skip
    told = json.loads(stdout)
    assert all(row["largest_difference"] < 1e-3 for row in told["artifacts"])
    loaded = tf.saved_model.load(told["path"])
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
    stdout, _ = run_command("predict", told["path"], folder / "00.png", "--json")
    direct, _ = run_command("predict", output, folder / "00.png", "--json")
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

    output, _, _ = request.getfixturevalue(which)
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


def test_augmentation_is_the_users_where_given(folder):
    how = ("--augmentation", "flip")
    _, metrics, _ = train(folder, "values.csv", "regression", *how)
    assert metrics["recipe"]["augmentation"] == "flip"
    _, error = run_command("train", folder / "values.csv", "--augmentation", "flop", status=2)
    assert "`--augmentation` must be one of 'none', 'flip'" in error


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_open_stages_learn_and_a_killed_training_ends_alike(folder, tmp_path, task):
    """By gradients, with mixup, interrupted after an epoch and taken up again."""
    table = "labels.csv" if task == "multi_label" else "values.csv"
    data = kerastl.load_data(str(folder / table), task=task, seed=0)
    phases = (
        kerastl.Phase("head", 7, "probe"),
        kerastl.Phase("open", 5, epochs=2, learning_rate=1e-3),
    )
    recipe = kerastl.Recipe("mine", phases, task=task, mixup_alpha=0.2, batch_size=16)

    def fit(**how):
        keras.utils.set_random_seed(0)
        model = kerastl.build_transfer_model(
            "MobileNetV2(alpha=0.35)", data.num_classes, weights="embedded", task=task
        )
        history = kerastl.fine_tune(model, data, recipe=recipe, verbose=False, **how).history
        return model, history

    class Stop(keras.callbacks.Callback):
        def __init__(self, wanted):
            super().__init__()
            self.wanted = wanted

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1 and self.wanted:
                raise KeyboardInterrupt

    model, history = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=tmp_path, callbacks=lambda phase: [Stop(wanted=True)])
    again, _ = fit(checkpoints=tmp_path, callbacks=lambda phase: [Stop(wanted=False)])
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(history["val_loss"]).all()
    found = kerastl.evaluate(model, data.test)
    if task == "regression":
        assert found["r2"] > 0.3  # in the units of the data
        compiled = model.evaluate(data.test.batches(64), return_dict=True, verbose=0)
        assert compiled["mean_absolute_error"] == pytest.approx(
            found["mean_absolute_error"], rel=1e-3
        )
    else:
        assert found["mean_average_precision"] > 0.8


def test_what_goes_by_classes_says_so(folder, labelled):
    data = kerastl.load_data(str(folder / "labels.csv"), task="multi_label")
    name = "MobileNetV2(alpha=0.35)"
    for refused in (
        lambda: kerastl.diagnose(name, data, weights="embedded"),
        lambda: kerastl.rank_backbones(data, [name]),
        lambda: kerastl.search(data, name, weights="embedded"),
    ):
        with pytest.raises(ArgumentError, match="takes task='classification' alone"):
            refused()
    model = kerastl.build_transfer_model(name, 3, weights="embedded")
    with pytest.raises(ArgumentError, match="task"):
        kerastl.fine_tune(model, data)
    with pytest.raises(ArgumentError, match="task"):
        kerastl.evaluate(model, data.test)
    run_command("explain", labelled[0], folder / "00.png", status=2)


def test_a_map_of_numbers_is_refused(valued):
    model = keras.saving.load_model(valued[0] / "model.keras", compile=False)
    with pytest.raises(ArgumentError, match="takes task='classification' or task='multi_label'"):
        kerastl.ClassMapper(model)


def test_a_recipe_of_another_task_is_refused(folder, labelled, tmp_path):
    result = CliRunner().invoke(
        application.app,
        ["train", str(folder / "values.csv"), "--recipe", str(labelled[0]), "--output",
         os.fspath(tmp_path)],
    )  # fmt: skip
    assert result.exit_code == 2
    assert "give --task multi_label" in " ".join(result.output.replace("│", " ").split())
