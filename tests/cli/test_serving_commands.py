"""`kerastl export` and `kerastl predict` on a run, a `.keras` file and a SavedModel."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kerastl.cli import app as application
from kerastl.errors import KerastlError

NAMES = ["dark", "bright", "neither, nor"]


@pytest.fixture(autouse=True)
def _keep_tensorflow_as_it_is(monkeypatch):
    """In these tests TensorFlow runs already, and determinism would leak into the others."""
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


def kerastl(*arguments, status=0, stdin=None):
    """Run the command as `main` does; return (stdout, stderr)."""
    result = CliRunner().invoke(application.app, [str(a) for a in arguments], input=stdin)
    if isinstance(result.exception, KerastlError):
        assert result.exception.exit_status == status, result.exception
        return result.stdout, str(result.exception)
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder per class with four PNG files each."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index, name in enumerate(NAMES):
        (root / name).mkdir()
        for number in range(4):
            pixels = rng.integers(80 * index, 80 * index + 80, (40, 30, 3)).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of an untrained head."""
    from kerastl.model.build import build_transfer_model
    from kerastl.results.run_files import RunFiles

    model = build_transfer_model("MobileNetV2(alpha=0.35)", 3, weights="embedded")
    rng = np.random.default_rng(0)
    model.layers[-1].set_weights([rng.normal(size=w.shape) for w in model.layers[-1].weights])
    folder = tmp_path_factory.mktemp("run")
    RunFiles(folder).write_model(model)
    RunFiles(folder).write_labels(NAMES)
    return folder


@pytest.fixture(scope="module")
def exported(run, images):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        stdout, _ = kerastl(
            "export", run, "--format", "saved_model", "--format", "litert", "--data", images,
            "--json",
        )  # fmt: skip
    return run / "saved_model", json.loads(stdout)


def test_export_adds_a_version_to_the_run(exported, run):
    folder, certificate = exported
    assert certificate["path"] == str(run / "saved_model" / "1")
    assert certificate["sample"] == {"images": 12, "source": "given", "labelled": True}
    rows = {row["artifact"]: row for row in certificate["artifacts"]}
    assert rows["litert"]["accuracy"] == certificate["keras_accuracy"]
    assert (folder / "1" / "model.tflite").is_file()


def test_export_prints_a_table(run, tmp_path):
    stdout, stderr = kerastl("export", run / "model.keras", "--output", tmp_path, "--version", 5)
    assert "compared with Keras on 8 generated images" in " ".join(stdout.split())
    assert "serving_bytes" in stdout
    assert "Accuracy was not measured" in stderr
    assert (tmp_path / "5" / "saved_model.pb").is_file()


def test_all_models_predict_alike(exported, run, images):
    answers = []
    for model in (run, run / "model.keras", exported[0], exported[0] / "1"):
        stdout, _ = kerastl("predict", model, images, "--top", 3, "--json")
        answers.append(json.loads(stdout)["predictions"])
    assert len(answers[0]) == 12
    for others in answers[1:]:
        for answer, other in zip(answers[0], others, strict=True):
            assert answer["path"] == other["path"]
            assert [one["label"] for one in answer["classes"]] == [
                one["label"] for one in other["classes"]
            ]
            for one, two in zip(answer["classes"], other["classes"], strict=True):
                assert one["probability"] == pytest.approx(two["probability"], abs=1e-5)


def test_csv_and_json_lines(run, images):
    stdout, _ = kerastl("predict", run, images, "--top", 2, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(stdout)))
    assert len(rows) == 24
    assert [row["rank"] for row in rows[:4]] == ["1", "2", "1", "2"]
    stdout, _ = kerastl("predict", run, images, "--top", 2, "--format", "jsonl")
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [line["path"] for line in lines] == [row["path"] for row in rows[::2]]
    assert [line["classes"][0]["label"] for line in lines] == [row["label"] for row in rows[::2]]
    assert lines[0]["classes"][0]["probability"] == pytest.approx(
        float(rows[0]["probability"]), abs=1e-6
    )


def test_paths_on_stdin(run, images):
    listed = [str(images / "dark" / "0.png"), str(images / "bright")]
    stdout, _ = kerastl("predict", run, "-", "--format", "csv", stdin="\n".join(listed) + "\n\n")
    paths = [row["path"] for row in csv.DictReader(io.StringIO(stdout))]
    assert paths == [listed[0], *(str(images / "bright" / f"{n}.png") for n in range(4))]


def test_a_damaged_file_is_left_out_when_asked(run, images, tmp_path):
    shutil.copy(images / "dark" / "0.png", tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((images / "dark" / "0.png").read_bytes()[:60])
    _, stderr = kerastl("predict", run, tmp_path, status=2)
    assert "cut.png" in stderr
    stdout, stderr = kerastl("predict", run, tmp_path, "--on-bad", "skip", "--format", "csv")
    assert len(stdout.splitlines()) == 2
    assert "Left out" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "EMPTY", "x.png"], "it has no model.keras, and no SavedModel either"),
        (["predict", "RUN", "x.png", "--format", "xml"], "must be one of 'table', 'csv', 'jsonl'"),
        (["predict", "FOREIGN", "x.png"], "could not be read as a SavedModel of `kerastl export`"),
        (["export", "EMPTY"], "it has no model.keras"),
        (["export", "RUN/model.keras"], "`--output` must name the folder"),
        (["export", "RUN", "--format", "tflite"], "must be one of 'saved_model', 'litert'"),
        (["export", "RUN", "--format", "litert_int8"], "Pass some of the training images"),
        (["serve", "EMPTY"], "There is no SavedModel to serve in"),
    ],
)
def test_wrong_arguments_exit_2_with_a_sentence(run, tmp_path, arguments, message):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "saved_model.pb").write_bytes(b"torn")
    (foreign / "labels.txt").write_text("a\nb\n")
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "FOREIGN": foreign, "RUN": run}
    given = [str(places.get(a, a)).replace("RUN", str(run)) for a in arguments]
    _, stderr = kerastl(*given, status=2)
    assert message in stderr


def test_a_missing_package_of_the_server_names_the_extra(exported, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    _, stderr = kerastl("serve", exported[0], status=2)
    assert "needs uvicorn, not installed here. Install it: pip install 'kerastl[serve]'" in stderr
