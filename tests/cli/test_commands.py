import csv
import json
import shutil
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from kerastl.runs.digits import digits
from kerastl.runs.run import load_run
from tests.command import kerastl


@pytest.fixture(scope="session")
def scenario_run(finished_run, run_once):
    """A run of a scenario by name, with a damaged file among the images: folder, and told."""

    def prepare(folder):
        shutil.copytree(finished_run.images, folder / "images")
        damaged = folder / "images" / "train" / "dark" / "cut.png"
        damaged.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
        return [
            "train", folder / "images", "--backbone", finished_run.backbone, "--scenario",
            "large_similar", "--epochs", 1, "--on-bad", "skip", "--output", folder / "run",
            "--json", "--batch-size", 16, "--learning-rate", 0.002, "--freeze-depth", 3,
            "--patience", 4, "--validation-fraction", 0.2, "--time-limit", "1h",
        ]  # fmt: skip

    return run_once("scenario_run", prepare, exports=False, cache=True)


def test_a_run_directory_has_all_its_files(finished_run):
    output, metrics = finished_run.directory, finished_run.metrics
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"test", "validation", "decisions", "timing", "recipe", "versions"}
    assert {"accuracy", "macro_f1", "log_loss", "ece", "num_images"} <= set(metrics["test"])
    assert metrics["test"]["num_images"] == 16
    assert metrics["test"]["accuracy"] == 1.0
    assert {"total_seconds", "phases", "store"} == set(metrics["timing"])
    assert (output / "labels.txt").read_text().splitlines() == ["bright", "dark"]
    assert (output / "history.csv").is_file()
    assert (output / "saved_model" / "1" / "saved_model.pb").is_file()
    assert list((output / "logs").rglob("events*"))


def test_verbose_tells_why_each_number_is_what_it_is(finished_run):
    asked = ["--backbone", finished_run.backbone, "--output", finished_run.directory, "--resume"]
    for more in ([], ["--verbose"]):
        stdout, _ = kerastl("train", finished_run.images, *asked, *more)
        assert ("freeze_depth" in stdout) == bool(more)


def test_a_scenario_by_name_runs_its_phases_and_measures_nothing(scenario_run):
    folder, _ = scenario_run
    with open(folder / "run" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["head", "fine_tune"]
    recipe = load_run(folder / "run").recipe
    assert (recipe.batch_size, recipe.patience, recipe.validation_fraction) == (16, 4, 0.2)
    last = recipe.phases[-1]
    assert (last.learning_rate, last.freeze_depth, last.epochs) == (0.002, 3, 1)
    assert not (folder / "run" / "diagnosis.json").exists()


def test_a_damaged_file_stops_or_is_left_out(scenario_run, finished_run, tmp_path):
    folder, told = scenario_run
    assert "cut.png" in told.stderr
    assert json.loads(told.stdout)["test"]["num_images"] == 16
    _, stderr = kerastl(
        "train", folder / "images", "--backbone", finished_run.backbone, "--output",
        tmp_path / "run", status=2,
    )  # fmt: skip
    assert "cut.png" in stderr
    assert not (tmp_path / "run").exists()


def test_a_recipe_runs_again_to_the_same_result_from_the_store(
    scenario_run, tmp_path, monkeypatch, without_exports
):
    """Under a strategy, which says so."""
    folder, told = scenario_run
    metrics = json.loads(told.stdout)
    assert not metrics["timing"]["store"]["from_store"]
    assert "Reused stored activations" not in told.stderr
    shutil.copytree(folder / "cache", tmp_path / "cache")
    monkeypatch.setenv("KERASTL_CACHE_DIR", str(tmp_path / "cache"))

    stdout, stderr = kerastl(
        "train", folder / "images", "--recipe", folder / "run" / "recipe.json", "--on-bad", "skip",
        "--strategy", "mirrored", "--output", tmp_path / "again", "--json",
    )  # fmt: skip

    again = json.loads(stdout)
    assert again["recipe"] == metrics["recipe"]
    assert again["test"]["log_loss"] == pytest.approx(metrics["test"]["log_loss"], rel=1e-3)
    assert again["timing"]["store"]["from_store"]
    assert "Reused stored activations" in stderr
    devices = len(tf.config.list_logical_devices("GPU")) or 1
    assert f"Devices that share each batch: {devices}." in stderr


def test_the_cache_is_listed_and_cleared(scenario_run, tmp_path, monkeypatch):
    shutil.copytree(scenario_run[0] / "cache", tmp_path / "cache")
    monkeypatch.setenv("KERASTL_CACHE_DIR", str(tmp_path / "cache"))
    listing = json.loads(kerastl("cache", "--json").stdout)
    assert listing["bytes"] == sum(entry["bytes"] for entry in listing["entries"]) > 0
    assert "embeddings of" in kerastl("cache").stdout
    listing = json.loads(kerastl("cache", "--clear", "--json").stdout)
    assert listing["removed_bytes"] > 0
    assert listing["entries"] == []


def test_evaluate(finished_run, tmp_path):
    run, images = finished_run.directory, finished_run.images
    measured = json.loads(kerastl("evaluate", run, images, "--json").stdout)["test"]
    expected = finished_run.metrics["test"]["log_loss"]
    assert measured["log_loss"] == pytest.approx(expected, rel=1e-4)
    assert "48" in kerastl("evaluate", run, images / "train").stdout
    # A test set may lack classes.
    shutil.copytree(images / "test" / "dark", tmp_path / "only" / "dark")
    measured = json.loads(kerastl("evaluate", run, tmp_path / "only", "--json").stdout)
    assert measured["all"]["num_images"] == 8


def test_predict_agrees_with_the_exported_model(finished_run):
    output, images = finished_run.directory, finished_run.images
    image = images / "test" / "dark" / "3.png"
    stdout, _ = kerastl("predict", output, image, images / "test" / "bright", "--top", 2, "--json")
    answers = json.loads(stdout)["predictions"]
    assert len(answers) == 9
    assert [answer["classes"][0]["label"] for answer in answers] == ["dark"] + ["bright"] * 8
    served = tf.saved_model.load(str(output / "saved_model" / "1")).signatures["serving_bytes"]
    got = served(image_bytes=tf.constant([image.read_bytes()]))
    assert got["label"].numpy()[0].decode() == "dark"
    assert float(got["probabilities"][0].numpy().max()) == pytest.approx(
        answers[0]["classes"][0]["probability"], abs=1e-5
    )


def test_tables_for_people(finished_run, tmp_path):
    shutil.copytree(finished_run.images / "test" / "dark", tmp_path / "dark")
    (tmp_path / "dark" / "0.png").rename(tmp_path / "dark" / "a[b].png")
    stdout, _ = kerastl("predict", finished_run.directory, tmp_path / "dark")
    assert "8 images" in stdout
    # A name that looks like markup.
    assert "a[b].png" in stdout.replace("\n", "").replace("│", "").replace(" ", "")
    stdout, _ = kerastl("backbones", "EfficientNetV2*")
    assert "7 backbones" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no_such_folder"], "no_such_folder"),
        (["train", "FOLDER", "--weights", "no_such.h5"], "no_such.h5"),
        (["train", "FOLDER", "--backbone", "MobilNetV2"], "MobileNetV2"),
        (["train", "FOLDER", "--weights", "random", "--scenario", "smal_similar"], "small_similar"),
        (["train", "FOLDER", "--output", "FOLDER"], "contains files already"),
        (["train", "FOLDER", "--recipe", "no_such.json"], "no_such.json"),
        (["evaluate", "FOLDER", "FOLDER"], "not a finished run"),
        (["predict", "RUN", "no_such.jpg"], "no_such.jpg"),
        (["diagnose", "FOLDER", "--backbone", "MobilNetV2"], "Did you mean 'MobileNetV2'"),
        (["diagnose", "FOLDER", "--weights", "no_such.h5"], "no_such.h5"),
        (["rank", "no_such_folder", "MobileNetV2", "MobilNetV2"], "Did you mean 'MobileNetV2'"),
        (
            ["rank", "FOLDER", "MobileNetV2", "--weights", "random", "--weights", "imagenet"],
            "Received: 2 for 1 backbones",
        ),
    ],
)
def test_wrong_arguments_exit_2_with_a_sentence(
    finished_run, tmp_path, arguments, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"FOLDER": finished_run.images, "RUN": finished_run.directory}
    _, stderr = kerastl(*(places.get(a, a) for a in arguments), status=2)
    assert message in stderr
    assert not (tmp_path / "runs").exists()


def test_the_digits_of_the_quick_start():
    data = digits(0)
    assert data.num_images == 1797
    assert data.class_names == [str(digit) for digit in range(10)]
    assert len(data.test) == pytest.approx(0.8 * 1797, abs=10)


def test_the_script_itself(tmp_path):
    """Through `main`, in a process of its own: exit status, and JSON alone on stdout."""

    def run_script(*arguments):
        program = "from kerastl.cli.app import main; main()"
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    wrong = run_script("train", "no_such_folder", "--weights", "embedded")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert "\nkerastl: There is no such folder or file" in wrong.stderr
    assert run_script("train").returncode == 2
    listing = run_script("backbones", "ResNet*", "--json")
    assert listing.returncode == 0
    assert len(json.loads(listing.stdout)["backbones"]) == 6


KEYS = {"scenario", "probability", "size", "similarity", "profile", "warnings", "advice"}


@pytest.fixture
def any_size(tiny_backbone, tmp_path):
    """A `.keras` file of a backbone for images of any size, with statistics as of a training."""
    inputs = keras.Input((None, None, 3))
    outputs = inputs
    for layer in tiny_backbone().layers[1:]:
        outputs = layer(outputs)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(0.5 + layer.moving_variance)
    path = tmp_path / "any_size.keras"
    keras.Model(inputs, outputs).save(path)
    return path


def test_a_diagnosis_as_json(finished_run, any_size, tmp_path):
    figure = tmp_path / "diagnosis.png"
    stdout, stderr = kerastl(
        "diagnose", finished_run.images, "--backbone", any_size, "--image-size", 48, "--plot",
        figure, "--json",
    )  # fmt: skip
    found = json.loads(stdout)
    assert set(found) >= KEYS
    assert found["size"]["num_images"] == 48
    assert found["similarity"]["image_size"] == [48, 48]
    advice = found["advice"]
    assert advice["recipe"]["backbone"] == str(any_size)
    assert advice["recipe"]["weights"] == "model"
    assert advice["recipe"]["image_size"] == [48, 48]
    assert advice["recipe"]["name"] == found["scenario"]
    assert all(reason["why"] for reason in advice["reasons"])
    assert figure.is_file()
    assert str(figure) in stderr.replace("\n", "")


def test_a_diagnosis_for_people(finished_run, any_size):
    stdout, stderr = kerastl(
        "diagnose", finished_run.images, "--backbone", any_size, "--image-size", 48
    )
    assert "sure" in stderr
    assert "Similarity: BatchNormalization shift" in stderr
    assert "freeze_depth" in stdout
    assert "Expected gain over training the head only" in " ".join(stdout.split())


def test_a_ranking(finished_run, tmp_path):
    other = tmp_path / "other.keras"
    shutil.copy(finished_run.backbone, other)
    named = "MobileNet(alpha=0.25)"
    arguments = [
        "rank", finished_run.images, other, named, "--weights", "imagenet", "--weights", "random",
        "--image-size", 32,
    ]  # fmt: skip
    ranked = json.loads(kerastl(*arguments, "--json").stdout)["backbones"]
    assert {each["name"] for each in ranked} == {str(other), named}
    assert all(0 <= each["probe_score"] <= 1 for each in ranked)
    stdout, _ = kerastl("rank", finished_run.images, finished_run.backbone)
    assert "Best first" in stdout


def test_train_measures_which_scenario_it_is(finished_run):
    metrics = finished_run.metrics
    found = json.loads((finished_run.directory / "diagnosis.json").read_text())
    assert set(found) >= KEYS
    assert metrics["recipe"]["name"] == found["scenario"]
    assert metrics["recipe"]["reason"].startswith("Measured: ")
    assert "sure" in finished_run.stderr


@pytest.mark.slow
def test_train_chooses_the_size(finished_run, any_size, tmp_path, without_exports):
    output = tmp_path / "run"
    stdout, stderr = kerastl(
        "train", finished_run.images, "--backbone", any_size, "--image-sizes", "48,32", "--epochs",
        1, "--output", output, "--json",
    )  # fmt: skip
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
        (("--image-sizes", "48,32", "--scenario", "guide"), "needs --scenario auto"),
    ],
)
def test_sizes_that_cannot_be_meant(finished_run, tmp_path, options, told):
    _, stderr = kerastl("train", finished_run.images, "--output", tmp_path, *options, status=2)
    assert told in " ".join(stderr.replace("│", " ").split())


@pytest.mark.slow
def test_the_embedded_network_from_images_to_answers(finished_run, tmp_path):
    """The way of the README: measured, trained, exported, and asked."""
    images, output = finished_run.images, tmp_path / "run"
    stdout, _ = kerastl(
        "train", images, "--weights", "embedded", "--image-size", 48, "--epochs", 1, "--output",
        output, "--json",
    )  # fmt: skip
    metrics = json.loads(stdout)
    assert metrics["recipe"]["backbone"] == "MobileNetV2(alpha=0.35)"
    assert metrics["recipe"]["weights"] == "embedded"
    assert metrics["recipe"]["image_size"] == [48, 48]
    assert metrics["test"]["accuracy"] == 1.0
    found = json.loads((output / "diagnosis.json").read_text())
    assert found["advice"]["recipe"]["backbone"] == "MobileNetV2(alpha=0.35)"
    assert found["advice"]["recipe"]["weights"] == "embedded"
    stdout, _ = kerastl("evaluate", output, images, "--json")
    measured = json.loads(stdout)["test"]
    assert measured["log_loss"] == pytest.approx(metrics["test"]["log_loss"], rel=1e-4)
    image = images / "test" / "dark" / "3.png"
    for model in (output, output / "saved_model"):
        (answer,) = json.loads(kerastl("predict", model, image, "--json").stdout)["predictions"]
        assert answer["classes"][0]["label"] == "dark"
