"""`kerastl export` and `kerastl predict` on a run, a `.keras` file and a SavedModel."""

import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kerastl.model.build import build_transfer_model
from kerastl.results.run_files import RunFiles
from tests.command import kerastl

NAMES = ["dark", "bright", "neither, nor"]


@pytest.fixture(scope="session")
def exporting(tiny_backbone, run_once):
    """A folder with a `run` of an untrained head, exported; `images` by class; and told."""

    def prepare(folder):
        rng = np.random.default_rng(0)
        for index, name in enumerate(NAMES):
            (folder / "images" / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(80 * index, 80 * index + 80, (40, 30, 3)).astype("uint8")
                Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
        model = build_transfer_model(tiny_backbone(), 3)
        model.layers[-1].set_weights([rng.normal(size=w.shape) for w in model.layers[-1].weights])
        (folder / "run").mkdir()
        RunFiles(folder / "run").write_model(model)
        RunFiles(folder / "run").write_labels(NAMES)
        return [
            "export", folder / "run", "--format", "saved_model", "--format", "litert", "--data",
            folder / "images", "--json",
        ]  # fmt: skip

    return run_once("exporting", prepare)


@pytest.fixture
def run(exporting):
    return exporting[0] / "run"


@pytest.fixture
def images(exporting):
    """A folder per class with four PNG files each."""
    return exporting[0] / "images"


@pytest.fixture
def exported(exporting):
    return exporting[0] / "run" / "saved_model", json.loads(exporting[1].stdout)


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


def test_predictions_in_a_file(run, images, tmp_path):
    shutil.copy(images / "dark" / "0.png", tmp_path / "whole.png")
    (tmp_path / "=1+1.png").write_bytes((tmp_path / "whole.png").read_bytes())
    with contextlib.chdir(tmp_path):
        stdout, stderr = kerastl("predict", run, "=1+1.png", "whole.png", "-o", "found.csv")
    assert (stdout, "2 predictions: found.csv" in stderr) == ("", True)
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == ["'=1+1.png", "whole.png"]
    kerastl("predict", run, tmp_path / "whole.png", "--output", tmp_path / "found.xls", status=2)
    assert not (tmp_path / "found.xls").exists()


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
        (["predict", "EMPTY", "x.png"], "it has no model.keras and no SavedModel"),
        (["predict", "RUN", "x.png", "--format", "xml"], "must be one of 'table', 'csv', 'jsonl'"),
        (["predict", "FOREIGN", "x.png"], "as a SavedModel of `kerastl export`"),
        (["export", "EMPTY"], "it has no model.keras"),
        (["export", "RUN/model.keras"], "pass the folder of the versions as `--output`"),
        (["export", "RUN", "--format", "tflite"], "must be one of 'saved_model', 'litert'"),
        (["export", "RUN", "--format", "litert_int8"], "Pass `representative_data=data.train`"),
        (["serve", "EMPTY"], "There is no SavedModel in"),
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
    assert (
        "needs uvicorn, which is not installed. Install it: pip install 'kerastl[serve]'" in stderr
    )
