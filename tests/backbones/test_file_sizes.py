"""Files of models that promise more than they hold, or hold no numbers."""

import contextlib
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

from kerastl.backbones.saved_model_backbone import is_saved_model, read_saved, saved_file
from kerastl.backbones.weight_files import load_file
from kerastl.errors import WeightsError


def small():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="last")])


@pytest.fixture
def file(tmp_path):
    small().save(tmp_path / "small.keras")
    return tmp_path / "small.keras"


@pytest.fixture
def weights(tmp_path):
    small().save_weights(tmp_path / "small.weights.h5")
    return tmp_path / "small.weights.h5"


def with_member(file, name, size):
    with (
        zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        for _ in range(size // 2**20):
            member.write(bytes(2**20))


@pytest.mark.parametrize("name", ["config.json", "other.json", "model.weights.h5"])
def test_an_archive_that_would_fill_the_memory_is_not_read(file, name):
    again = pytest.warns(UserWarning, match="Duplicate name")
    with contextlib.nullcontext() if name == "other.json" else again:
        with_member(file, name, 2**26 + 2**20)
    with pytest.raises(WeightsError, match=r"does not read .* needs 68,\d+,\d+ bytes, more th"):
        read_saved(file)


def test_a_recompressed_model_is_read(file, tmp_path):
    with (
        zipfile.ZipFile(file) as stored,
        zipfile.ZipFile(tmp_path / "packed.keras", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    assert read_saved(tmp_path / "packed.keras").output_shape == (None, 2)


@pytest.mark.parametrize("content", [b"", b"PK cut", b"PK\x05\x06" + bytes(30)])
def test_what_is_no_archive(file, content):
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="Cannot read"):
        read_saved(file)


@pytest.mark.parametrize("how", ["chunks", "many"])
def test_a_weight_file_that_would_fill_the_memory_is_not_read(weights, how, monkeypatch):
    with h5py.File(weights, "a") as opened:
        if how == "chunks":
            opened.create_dataset("more", (2**40,), "f4", chunks=(1024,))
        else:
            monkeypatch.setattr("kerastl.backbones.file_sizes.MOST_MEMBERS", 100)
            for number in range(120):
                opened[f"more/{number}"] = 1.0
    with pytest.raises(WeightsError, match="does not read .*: what it holds|holds 122 arrays"):
        load_file(small(), weights)


def test_a_weight_file_that_lies_elsewhere_is_not_read(weights, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(weights, "a") as opened:
        opened.create_dataset("more", (8,), "f4", external=[(str(tmp_path / "secret"), 0, 64)])
    with pytest.raises(WeightsError, match="keeps 'more' in another file"):
        load_file(small(), weights)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path, number):
    model = small()
    model.set_weights([np.full((4, 2), number), np.zeros(2)])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    told = r"contains NaN or infinity: 8 of 8 weights of '.*last/kernel'\. Use another copy"
    with pytest.raises(WeightsError, match=told):
        read_saved(tmp_path / "m.keras")
    with pytest.raises(WeightsError, match=told):
        load_file(small(), tmp_path / "m.weights.h5")


def test_large_weights_are_numbers(tmp_path):
    model = small()
    model.set_weights([np.full((4, 2), 3e38), np.zeros(2)])
    model.save(tmp_path / "m.keras")
    assert read_saved(tmp_path / "m.keras").get_weights()[0][0, 0] == pytest.approx(3e38)


@pytest.mark.parametrize("name", ["x" * 255, "x" * 300, "x" * 5000, "\0", "a/" * 3000])
def test_names_that_no_file_can_have(name):
    if is_saved_model(name):
        with pytest.raises(WeightsError, match="There is no earlier model"):
            saved_file(name)


def test_a_folder_without_a_model(tmp_path, file):
    shutil.copy(file, tmp_path / "model.keras")
    assert saved_file(str(tmp_path)) == tmp_path / "model.keras"
    (tmp_path / "model.keras").unlink()
    with pytest.raises(WeightsError, match=r"the folder has no model\.keras"):
        saved_file(str(tmp_path))
