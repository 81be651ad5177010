import json
import os

import numpy as np
import pytest
from PIL import Image

from kerastl._atomic import atomic_write_json
from kerastl._versions import versions
from kerastl.data.load import load_data
from kerastl.data.pixels import ArraySource
from kerastl.errors import ArgumentError, DataError, ExportError, WeightsError
from kerastl.model.recipes import make_recipe
from kerastl.results.evaluation import _save
from kerastl.results.run_files import (
    LARGEST_PICTURE,
    RunFiles,
    new_run_directory,
    read_labelled_model,
    read_labels,
    read_object,
    read_recipe,
)
from kerastl.results.run_shapes import TrialsFile


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
    with pytest.raises(DataError, match="contains files already. Choose another `--output`"):
        new_run_directory(tmp_path / "a")


def test_recipes_alone_and_in_runs(tmp_path):
    recipe = make_recipe("guide", num_stages=5, num_images=10, num_classes=2)
    atomic_write_json(tmp_path / "alone.json", recipe.to_dict())
    atomic_write_json(tmp_path / "run.json", {"recipe": recipe.to_dict(), "versions": versions()})
    assert read_recipe(tmp_path / "alone.json") == read_recipe(tmp_path / "run.json") == recipe
    (tmp_path / "run.json").rename(tmp_path / "recipe.json")
    assert read_recipe(tmp_path) == recipe
    with pytest.raises(DataError, match="Cannot read .*guide.*To use a recipe by name"):
        read_recipe("guide")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", DataError, "Cannot read"),
        ("\ud800".encode("utf-16", "surrogatepass"), DataError, "Cannot read"),
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
    with pytest.raises(DataError, match="is not a finished run: it has no model.keras"):
        read_labelled_model(tmp_path)


def test_a_damaged_model(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK cut")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(WeightsError, match=r"Cannot read .*model.keras"):
        read_labelled_model(tmp_path)


def test_a_keras_file_needs_its_class_names(tmp_path):
    (tmp_path / "other.keras").write_bytes(b"PK cut")
    with pytest.raises(DataError, match=r"Cannot read the class names from .*--labels"):
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


@pytest.mark.parametrize("options", [[1], 3, "x", {"nope": 1}, {"bit_depth": "x"}, {"channels": 0}])
def test_options_of_the_data_are_checked_as_they_are_read(tmp_path, options):
    recipe = {"recipe": {}, "versions": {}, "data": {"options": options}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises((ArgumentError, DataError)):
        _ = RunFiles(tmp_path).options.rules


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_files_without_class_names(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match="names"):
        read_labels(tmp_path / "labels.txt")


@pytest.fixture
def pictures(tmp_path):
    """A run whose folder of pictures holds one, and a victim beside the run."""
    folder = tmp_path / "run" / "pictures"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "good.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "victim.png")
    return folder


def test_pictures_of_the_run_are_addresses(pictures):
    Image.new("RGB", (4, 4)).save(pictures / "good.jpg")
    files = RunFiles(pictures.parent)
    assert files.picture("good.png").startswith("data:image/png;base64,iVBOR")
    assert files.picture("good.jpg").startswith("data:image/jpeg;base64,/9j/")


def a_link(folder):
    (folder / "x").symlink_to(folder.parents[1] / "victim.png")


def a_pipe(folder):
    os.mkfifo(folder / "x")


def a_text(folder):
    (folder / "x").write_text("root:x:0:0")


def one_too_large(folder):
    (folder / "x").write_bytes(b"\x89PNG" + bytes(LARGEST_PICTURE))


@pytest.mark.parametrize(
    "name",
    [
        "../../victim.png", "pictures/../../victim.png", "/etc/passwd", "/dev/zero", "", ".", "..",
        "good.png/", "\0", "x" * 300, a_link, a_pipe, a_text, one_too_large, os.mkdir,
    ],
)  # fmt: skip
def test_no_other_file_gets_into_the_page(pictures, name):
    if callable(name):
        name(pictures / "x" if name is os.mkdir else pictures)
        name = "x"
    assert RunFiles(pictures.parent).picture(name) is None


def test_a_folder_of_pictures_that_is_a_link_is_not_entered(pictures):
    run = RunFiles(pictures.parents[1] / "other")
    run.directory.mkdir()
    run.path("pictures").symlink_to(pictures)
    assert run.picture("good.png") is None
    with pytest.raises(ExportError, match="is a link, and kerastl does not write through links"):
        run.make_folder("pictures")


def test_a_picture_takes_the_place_of_a_link(pictures):
    victim = pictures.parents[1] / "victim.png"
    before = victim.read_bytes()
    (pictures / "worst-00.png").symlink_to(victim)
    assert _save(pictures, "worst-00", np.zeros((4, 4, 3), "uint8")) == "worst-00.png"
    assert victim.read_bytes() == before
    assert not (pictures / "worst-00.png").is_symlink()


@pytest.mark.parametrize("make", ["link", "pipe", "folder", "NaN"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("recipe.json", lambda files: files.recipe),
        ("metrics.json", lambda files: files.metrics),
        ("history.csv", lambda files: files.history),
        ("predictions.csv", lambda files: files.prediction_rows()),
        ("labels.txt", lambda files: files.class_names),
    ],
)
def test_run_files_are_regular_files(tmp_path, name, read, make):
    path = tmp_path / name
    if make == "link":
        (tmp_path / "secret").write_text('{"recipe": {"secret": 1}}\n')
        path.symlink_to(tmp_path / "secret")
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    elif name.endswith("json"):
        path.write_text('{"recipe": NaN}')
    else:
        path.write_bytes(b"\xff,\xfe\n1,2\n")
    with pytest.raises(DataError, match="Cannot read"):
        read(RunFiles(tmp_path))


def test_images_that_a_run_has_seen(tmp_path):
    """As files, and the same pixels as arrays; stored again they look alike."""
    rng = np.random.default_rng(0)
    pictures = np.kron(rng.integers(0, 256, (40, 8, 8, 3)), np.ones((1, 8, 8, 1))).astype("uint8")
    for number, picture in enumerate(pictures[:20]):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    folder = load_data(tmp_path, test_fraction=0, validation_fraction=0).train.source
    again = pictures[5:25, ::2, ::2] // 10 * 9
    arrays = ArraySource(pictures, np.arange(10, 40))
    files = RunFiles(tmp_path)
    assert files.warn_of_seen(arrays) == []  # a run of before
    files.write_seen([folder])

    (exact,) = files.warn_of_seen(arrays)
    (near,) = files.warn_of_seen(ArraySource(again, np.arange(20)))

    assert exact.startswith(
        "the run used 10 of these 30 images for training or validation, so the fi"
    )
    assert near.startswith("the run used images that look like 15 of these")
    assert files.warn_of_seen(arrays.subset(np.arange(10, 30))) == []
    files.write(files.SEEN, "".join(f"{one}\n" for one in folder.contents()))  # of 0.2.0
    assert "20 of these 20 images" in files.warn_of_seen(folder)[0]
    files.write(files.SEEN, "a zz\n\nno print 0\n")
    assert files.warn_of_seen(folder) == []


def test_what_earlier_versions_called_accuracy_is_a_score(tmp_path):
    row = {"accuracy": 0.5, "standard_error": 0.1}
    trial = {**row, "freeze_depth": 1, "learning_rate": None, "epochs": 0, "loss": 1.0}
    trial |= {"seconds": 1.0, "status": "completed", "reason": ""}
    old = {"best": trial, "corrected": row, "trials": [trial], "profile": [{"index": 0, **row}]}
    (tmp_path / "trials.json").write_text(json.dumps(old))
    found = read_object(tmp_path / "trials.json", shape=TrialsFile)
    for one in (found["best"], found["corrected"], *found["trials"], *found["profile"]):
        assert (one["score"], "accuracy" in one) == (0.5, False)
