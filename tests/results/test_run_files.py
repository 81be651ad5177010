import json

import pytest

from kerastl._atomic import atomic_write_json
from kerastl._versions import versions
from kerastl.errors import ArgumentError, DataError, WeightsError
from kerastl.model.recipes import make_recipe
from kerastl.results.run_files import (
    new_run_directory,
    read_labelled_model,
    read_labels,
    read_recipe,
)


def test_numbers_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(new_run_directory(None)) == "runs/1"
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "12").mkdir(parents=True)
    (tmp_path / "runs" / "notes").mkdir()
    assert str(new_run_directory(None)) == "runs/13"


def test_a_run_is_never_written_over(tmp_path):
    assert new_run_directory(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    with pytest.raises(DataError, match="holds files already. Choose another `--output`"):
        new_run_directory(tmp_path / "a")


def test_recipes_alone_and_in_runs(tmp_path):
    recipe = make_recipe("guide", num_stages=5, num_images=10, num_classes=2)
    atomic_write_json(tmp_path / "alone.json", recipe.to_dict())
    atomic_write_json(tmp_path / "run.json", {"recipe": recipe.to_dict(), "versions": versions()})
    assert read_recipe(tmp_path / "alone.json") == read_recipe(tmp_path / "run.json") == recipe
    (tmp_path / "run.json").rename(tmp_path / "recipe.json")
    assert read_recipe(tmp_path) == recipe
    with pytest.raises(DataError, match="guide could not be read.*name of a recipe goes where"):
        read_recipe("guide")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", DataError, "could not be read"),
        ("\ud800".encode("utf-16", "surrogatepass"), DataError, "could not be read"),
        ("[1]", ArgumentError, "must be a JSON object"),
        (json.dumps({"recipe": {"nme": 1}}), ArgumentError, "no field 'nme'"),
    ],
)
def test_damaged_recipes(tmp_path, text, error, message):
    path = tmp_path / "recipe.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=message):
        read_recipe(path)


def test_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match="is no finished run: it has no model.keras"):
        read_labelled_model(tmp_path)


def test_a_damaged_model(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK cut")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(WeightsError, match=r"model.keras could not be read"):
        read_labelled_model(tmp_path)


def test_a_keras_file_needs_its_class_names(tmp_path):
    (tmp_path / "other.keras").write_bytes(b"PK cut")
    with pytest.raises(DataError, match=r"class names could not be read from .*--labels"):
        read_labelled_model(tmp_path / "other.keras")
    with pytest.raises(DataError, match=r"it has no missing.keras"):
        read_labelled_model(tmp_path / "missing.keras")


@pytest.mark.parametrize(
    ("text", "names"),
    [("a\nb\n", ["a", "b"]), ("ä b\r\nc", ["ä b", "c"]), ("a\n\nb", ["a", "", "b"])],
)
def test_class_names_are_lines(tmp_path, text, names):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert read_labels(tmp_path / "labels.txt") == names


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_files_without_class_names(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match="names"):
        read_labels(tmp_path / "labels.txt")
