import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from kerastl.cli import app as application
from kerastl.cli.quickstart import digits


@pytest.fixture(autouse=True)
def _keep_tensorflow_as_it_is(monkeypatch):
    """In these tests TensorFlow runs already, and determinism would leak into the others."""
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


def kerastl(*arguments, status=0):
    """Run the command as `main` does; return (stdout, stderr)."""
    from kerastl.errors import KerastlError

    result = CliRunner().invoke(application.app, [str(argument) for argument in arguments])
    got = result.exit_code
    if isinstance(result.exception, KerastlError):
        got = result.exception.exit_status
        assert got == status, result.exception
        return result.stdout, str(result.exception)
    assert got == status, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of files: dark and bright, 24 each, 10 to validate and 8 to test.

    Two of each ten are in the wrong folder, so that no head is right about them, and all trains.
    """
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 10), ("test", 8)):
        for name, lows in (("dark", (0, 128)), ("bright", (128, 0))):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                low = lows[part == "val" and index < 2]
                pixels = rng.integers(low, low + 100, (40, 30, 3)).astype("uint8")
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "first"
    stdout, _ = kerastl(
        "train", folder, "--weights", "embedded", "--scenario", "large_similar",
        "--epochs", 1, "--output", output, "--json",
    )  # fmt: skip
    return output, json.loads(stdout)


def test_a_run_directory_has_all_its_files(run):
    output, metrics = run
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"test", "validation", "timing", "recipe", "versions"}
    assert {"accuracy", "macro_f1", "log_loss", "ece", "num_images"} <= set(metrics["test"])
    assert metrics["test"]["num_images"] == 16
    assert metrics["test"]["accuracy"] == 1.0
    assert {"total_seconds", "phases", "store"} == set(metrics["timing"])
    assert (output / "labels.txt").read_text().splitlines() == ["bright", "dark"]
    with open(output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["head", "fine_tune"]
    assert (output / "saved_model" / "1" / "saved_model.pb").is_file()
    assert list((output / "logs").rglob("events*"))


def test_a_recipe_runs_again_to_the_same_result(run, folder, tmp_path):
    output, metrics = run
    stdout, _ = kerastl(
        "train",
        folder,
        "--recipe",
        output / "recipe.json",
        "--output",
        tmp_path / "again",
        "--json",
    )
    again = json.loads(stdout)
    assert again["recipe"] == metrics["recipe"]
    assert again["test"]["log_loss"] == pytest.approx(metrics["test"]["log_loss"], rel=1e-3)


def test_training_under_a_strategy_says_how_many_devices_there_are(run, folder, tmp_path):
    output, metrics = run
    stdout, told = kerastl(
        "train", folder, "--recipe", output / "recipe.json", "--strategy", "mirrored",
        "--output", tmp_path / "mirrored", "--json",
    )  # fmt: skip
    devices = len(tf.config.list_logical_devices("GPU")) or 1
    assert f"Devices that share each batch: {devices}." in told
    measured = json.loads(stdout)["test"]
    assert measured["log_loss"] == pytest.approx(metrics["test"]["log_loss"], rel=1e-3)


def test_evaluate(run, folder):
    output, metrics = run
    stdout, _ = kerastl("evaluate", output, folder, "--json")
    assert json.loads(stdout)["test"]["log_loss"] == pytest.approx(
        metrics["test"]["log_loss"], rel=1e-4
    )
    stdout, _ = kerastl("evaluate", output, folder / "train")
    assert "48" in stdout


def test_predict_agrees_with_the_exported_model(run, folder):
    output, _ = run
    image = folder / "test" / "dark" / "3.png"
    stdout, _ = kerastl("predict", output, image, folder / "test" / "bright", "--top", 2, "--json")
    answers = json.loads(stdout)["predictions"]
    assert len(answers) == 9
    assert [answer["classes"][0]["label"] for answer in answers] == ["dark"] + ["bright"] * 8
    served = tf.saved_model.load(str(output / "saved_model" / "1")).signatures["serving_bytes"]
    got = served(image_bytes=tf.constant([image.read_bytes()]))
    assert got["label"].numpy()[0].decode() == "dark"
    assert float(got["probabilities"][0].numpy().max()) == pytest.approx(
        answers[0]["classes"][0]["probability"], abs=1e-5
    )


def test_tables_for_people(run, folder):
    output, _ = run
    stdout, _ = kerastl("predict", output, folder / "test" / "dark")
    assert "8 images" in stdout
    stdout, _ = kerastl("backbones", "EfficientNetV2*")
    assert "7 backbones" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no_such_folder"], "no_such_folder"),
        (["train", "FOLDER", "--weights", "no_such.h5"], "no_such.h5"),
        (["train", "FOLDER", "--backbone", "MobilNetV2"], "MobileNetV2"),
        (["train", "FOLDER", "--weights", "random", "--scenario", "smal_similar"], "small_similar"),
        (["train", "FOLDER", "--output", "FOLDER"], "holds files already"),
        (["train", "FOLDER", "--recipe", "no_such.json"], "no_such.json"),
        (["evaluate", "FOLDER", "FOLDER"], "no finished run"),
        (["predict", "RUN", "no_such.jpg"], "no_such.jpg"),
    ],
)
def test_wrong_arguments_exit_2_with_a_sentence(
    run, folder, tmp_path, arguments, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"FOLDER": folder, "RUN": run[0]}
    _, stderr = kerastl(*(places.get(a, a) for a in arguments), status=2)
    assert message in stderr
    assert not (tmp_path / "runs").exists()


def test_a_damaged_file_stops_or_is_left_out(folder, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "train" / "dark" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    arguments = ["train", damaged, "--weights", "embedded", "--output", tmp_path / "run", "--json"]
    _, stderr = kerastl(*arguments, status=2)
    assert "cut.png" in stderr
    assert not (tmp_path / "run").exists()
    stdout, stderr = kerastl(*arguments, "--on-bad", "skip")
    assert "cut.png" in stderr
    assert json.loads(stdout)["test"]["num_images"] == 16


def test_the_digits_of_the_quick_start():
    data = digits(0)
    assert data.num_images == 1797
    assert data.class_names == [str(digit) for digit in range(10)]
    assert len(data.test) == pytest.approx(0.8 * 1797, abs=10)


def test_the_cache_is_listed_and_cleared(run):
    stdout, _ = kerastl("cache", "--json")
    listing = json.loads(stdout)
    assert listing["bytes"] == sum(entry["bytes"] for entry in listing["entries"]) > 0
    stdout, _ = kerastl("cache")
    assert "embeddings of" in stdout
    stdout, _ = kerastl("cache", "--clear", "--json")
    listing = json.loads(stdout)
    assert listing["removed_bytes"] > 0
    assert listing["entries"] == []


def test_a_second_run_says_that_it_starts_from_the_store(folder, tmp_path):
    arguments = ["train", folder, "--weights", "embedded", "--scenario", "small_similar", "--json"]
    reports = []
    for name in ("first", "second"):
        stdout, stderr = kerastl(*arguments, "--seed", 5, "--output", tmp_path / name)
        reports.append((json.loads(stdout)["timing"]["store"], stderr))
    assert reports[1][0]["from_store"]
    assert "Started from the store" in reports[1][1]


def test_the_script_itself(tmp_path):
    """Through `main`, in a process of its own: exit status, and JSON alone on stdout."""

    def run_script(*arguments):
        program = "from kerastl.cli.app import main; main()"
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    wrong = run_script("train", "no_such_folder", "--weights", "embedded")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("kerastl: There is no such folder or file")
    assert run_script("train").returncode == 2
    listing = run_script("backbones", "ResNet*", "--json")
    assert listing.returncode == 0
    assert len(json.loads(listing.stdout)["backbones"]) == 6


def test_a_test_set_may_lack_classes(run, folder, tmp_path):
    output, _ = run
    stdout, _ = kerastl("evaluate", output, folder, "--json")
    shutil.copytree(folder / "test" / "dark", tmp_path / "only" / "dark")
    stdout, _ = kerastl("evaluate", output, tmp_path / "only", "--json")
    assert json.loads(stdout)["all"]["num_images"] == 8


def test_names_that_look_like_markup(run, folder, tmp_path):
    output, _ = run
    shutil.copy(folder / "test" / "dark" / "0.png", tmp_path / "a[b].png")
    stdout, _ = kerastl("predict", output, tmp_path / "a[b].png")
    assert "a[b].png" in stdout.replace("\n", "").replace("│", "").replace(" ", "")


KEYS = {"scenario", "probability", "size", "similarity", "profile", "warnings", "advice"}


def test_a_diagnosis_as_json(folder, tmp_path):
    figure = tmp_path / "diagnosis.png"
    stdout, stderr = kerastl(
        "diagnose", folder, "--weights", "embedded", "--image-size", 48, "--plot", figure, "--json"
    )
    found = json.loads(stdout)
    assert set(found) >= KEYS
    assert found["size"]["num_images"] == 48
    assert found["similarity"]["image_size"] == [48, 48]
    advice = found["advice"]
    assert advice["recipe"]["backbone"] == "MobileNetV2(alpha=0.35)"
    assert advice["recipe"]["weights"] == "embedded"
    assert advice["recipe"]["image_size"] == [48, 48]
    assert advice["recipe"]["name"] == found["scenario"]
    assert all(reason["why"] for reason in advice["reasons"])
    assert figure.is_file()
    assert str(figure) in stderr.replace("\n", "")


def test_a_diagnosis_for_people(folder):
    stdout, stderr = kerastl("diagnose", folder, "--weights", "embedded", "--image-size", 48)
    assert "sure" in stderr
    assert "Likeness: BatchNormalization shift" in stderr
    assert "freeze_depth" in stdout
    assert "Expected points over the head alone" in " ".join(stdout.split())


def test_a_ranking(folder):
    small, other = "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"
    arguments = [
        "rank", folder, small, other, "--weights", "embedded", "--weights", "random",
        "--image-size", 48,
    ]  # fmt: skip
    stdout, _ = kerastl(*arguments, "--json")
    ranked = json.loads(stdout)["backbones"]
    assert {each["name"] for each in ranked} == {small, other}
    assert all(0 <= each["probe_accuracy"] <= 1 for each in ranked)
    stdout, _ = kerastl(*arguments)
    assert "Best first" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diagnose", "FOLDER", "--backbone", "MobilNetV2"], "Did you mean 'MobileNetV2'"),
        (["diagnose", "FOLDER", "--weights", "no_such.h5"], "no_such.h5"),
        (["rank", "no_such_folder", "MobileNetV2", "MobilNetV2"], "Did you mean 'MobileNetV2'"),
        (
            ["rank", "FOLDER", "MobileNetV2", "--weights", "random", "--weights", "imagenet"],
            "Received: 2 for 1 backbones",
        ),
    ],
)
def test_wrong_arguments_of_advice_exit_2_with_a_sentence(folder, arguments, message):
    _, stderr = kerastl(*(folder if a == "FOLDER" else a for a in arguments), status=2)
    assert message in stderr


def test_train_measures_which_scenario_it_is(folder, tmp_path):
    output = tmp_path / "run"
    stdout, stderr = kerastl(
        "train", folder, "--weights", "embedded", "--image-size", 48, "--epochs", 1,
        "--output", output, "--json",
    )  # fmt: skip
    metrics = json.loads(stdout)
    assert json.loads((output / "metrics.json").read_text()) == metrics
    found = json.loads((output / "diagnosis.json").read_text())
    assert set(found) >= KEYS
    assert metrics["recipe"]["name"] == found["scenario"]
    assert metrics["recipe"]["reason"].startswith("Measured: ")
    assert metrics["test"]["accuracy"] == 1.0
    assert "sure" in stderr


def test_train_chooses_the_size(folder, tmp_path):
    output = tmp_path / "run"
    arguments = (
        "train", folder, "--weights", "embedded", "--image-sizes", "48,32", "--epochs", 1,
        "--output", output, "--json",
    )  # fmt: skip
    stdout, stderr = kerastl(*arguments)
    sizes = json.loads((output / "diagnosis.json").read_text())["sizes"]
    assert [probe["image_size"] for probe in sizes] == [[32, 32], [48, 48]]
    (chosen,) = (probe["image_size"] for probe in sizes if probe["chosen"])
    assert json.loads(stdout)["recipe"]["image_size"] == chosen
    assert "probe at 32: " in stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--image-sizes", "48"), "two or more whole numbers"),
        (("--image-sizes", "48,a"), "two or more whole numbers"),
        (("--image-sizes", "48,32", "--image-size", "64"), "--image-size or --image-sizes"),
        (("--image-sizes", "48,32", "--scenario", "guide"), "which --scenario auto does"),
    ],
)
def test_sizes_that_cannot_be_meant(folder, tmp_path, options, told):
    arguments = ["train", str(folder), "--output", str(tmp_path), *options]
    found = CliRunner().invoke(application.app, arguments)
    assert found.exit_code == 2
    assert told in " ".join(found.output.replace("│", " ").split())


def test_a_scenario_by_name_is_not_measured(run):
    output, _ = run
    assert not (output / "diagnosis.json").exists()
