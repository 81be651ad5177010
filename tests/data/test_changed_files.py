"""A file that goes bad after it was scanned stops training, and the error names it."""

import os
import shutil

import keras
import pytest
import tensorflow as tf

from kerastl.cli import app
from kerastl.data.load import load_data
from kerastl.errors import DataError
from tests.data.crafted import encoded, photo
from tests.data.layouts import build, classes


def changed(path):
    path.write_bytes(encoded("PNG", photo("L")))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path):
    path.write_bytes(b"")


def deleted(path):
    path.unlink()


def made_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [changed, truncated, emptied, deleted, made_a_folder]


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "images"
    build(root, classes(a=4, b=4), tmp_path)
    return load_data(root, test_fraction=0, validation_fraction=0), root / "b" / "2.png"


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_error_names_the_file(data, damage):
    images, path = data
    damage(path)

    with pytest.raises(tf.errors.OpError, match=r"/b/2\.png"):
        list(images.train.images(8))


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_command_says_it_in_a_sentence(data, damage, monkeypatch, capsys):
    images, path = data
    damage(path)
    monkeypatch.setattr(app, "app", lambda: list(images.train.images(8)))

    with pytest.raises(SystemExit) as raised:
        app.main()

    assert raised.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("kerastl: An image file was changed or removed after the scan: ")
    assert str(path) in told
    assert told.count("\n") == 1


def test_other_errors_of_tensorflow_are_not_taken_for_that(monkeypatch):
    def other():
        raise tf.errors.InvalidArgumentError(None, None, "shapes do not agree")

    monkeypatch.setattr(app, "app", other)

    with pytest.raises(tf.errors.InvalidArgumentError):
        app.main()


def test_training_stops_with_the_name_of_the_file(data):
    images, path = data
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = images.train.batches(8, batch_size=2, cache=False)
    model.fit(batches, shuffle=False, verbose=0)
    truncated(path)

    with pytest.raises(tf.errors.OpError, match=r"/b/2\.png"):
        model.fit(batches, shuffle=False, verbose=0)


def test_what_is_kept_in_memory_is_read_once(data):
    images, path = data
    batches = images.train.batches(8, cache=True)
    deleted(path)

    assert sum(len(labels) for _, labels in batches) == 8


def test_a_file_that_comes_back_is_the_same_file(data, tmp_path):
    images, path = data
    shutil.move(path, tmp_path / "away")
    shutil.move(tmp_path / "away", path)

    assert sum(len(batch) for batch in images.train.images(8)) == 8


def test_a_folder_that_is_gone_is_named(tmp_path):
    build(tmp_path / "images", classes(a=2, b=2), tmp_path)
    os.rename(tmp_path / "images", tmp_path / "gone")

    with pytest.raises(DataError, match="There is no such folder or file: .*/images"):
        load_data(tmp_path / "images")
