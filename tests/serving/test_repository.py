import json
import os

import pytest

from kerastl._hashing import sha256_of_bytes
from kerastl.errors import DataError
from kerastl.serving.repository import Repository


class Loaded:
    def __init__(self, path):
        self.number = int(path.name)
        if (path / "saved_model.pb").read_text() != "fine":
            raise ValueError("damaged")


@pytest.fixture
def put(tmp_path):
    def write(number, text="fine"):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "saved_model.pb").write_text(text)

    return write


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path, Loaded)


def test_the_newest_is_served(repository, put):
    put(2), put(10)
    repository.start()
    assert repository.served.number == 10
    assert not repository.refresh()
    put(11)
    assert repository.refresh()
    assert repository.served.number == 11


def test_one_that_does_not_load_is_passed_over_until_it_changes(repository, put, tmp_path, caplog):
    put(1), put(2, "torn")
    repository.start()
    assert repository.served.number == 1
    assert "Version 2" in caplog.text
    assert "damaged" in caplog.text
    caplog.clear()
    assert not repository.refresh()
    assert caplog.text == ""
    put(2)
    os.utime(tmp_path / "2" / "saved_model.pb", (1, 1))
    assert repository.refresh()
    assert repository.served.number == 2


def test_a_version_that_is_taken_away_gives_way_to_the_one_before(repository, put, tmp_path):
    put(1), put(2)
    repository.start()
    (tmp_path / "2" / "saved_model.pb").unlink()
    assert repository.refresh()
    assert repository.served.number == 1
    (tmp_path / "1" / "saved_model.pb").unlink()
    assert not repository.refresh()
    assert repository.served.number == 1


def test_nothing_to_serve(repository, put):
    with pytest.raises(DataError, match="There is no SavedModel in"):
        repository.start()
    put(1, "torn")
    with pytest.raises(DataError, match="No version in .* can be loaded"):
        repository.start()


class LoadedWithVariables(Loaded):
    """Needs `variables/data`, as TensorFlow does."""

    def __init__(self, path):
        super().__init__(path)
        if (path / "variables" / "data").read_text() != "whole":
            raise ValueError("cut")


@pytest.mark.parametrize("certificate", [None, "first", "last"])
def test_a_version_that_is_copied_slowly_is_served_when_it_is_there(
    put, tmp_path, caplog, certificate
):
    """Whatever comes first: its own file has its time stamp from the start."""
    put(1)
    (tmp_path / "1" / "variables").mkdir()
    (tmp_path / "1" / "variables" / "data").write_text("whole")
    repository = Repository(tmp_path, LoadedWithVariables)
    repository.start()
    folder, digests = tmp_path / "2", {"saved_model.pb": "fine", "variables/data": "whole"}
    text = json.dumps(
        {"sha256": {name: sha256_of_bytes(t.encode()) for name, t in digests.items()}}
    )
    put(2)
    steps = [
        lambda: (folder / "variables").mkdir(),
        lambda: (folder / "variables" / "data").write_text("who"),
        lambda: (folder / "variables" / "data").write_text("whole"),
    ]
    write = lambda: (folder / "parity.json").write_text(text)  # noqa: E731
    for step in {None: steps, "first": [write, *steps], "last": [*steps, write]}[certificate]:
        repository.refresh()
        step()
    repository.refresh()
    assert repository.served.number == 2
    if certificate == "first":
        assert "Waiting for version 2" in caplog.text


def test_what_was_changed_after_the_export_is_not_served(repository, put, tmp_path, caplog):
    put(1), put(2)
    other = {"sha256": {"saved_model.pb": sha256_of_bytes(b"another")}}
    (tmp_path / "2" / "parity.json").write_text(json.dumps(other))
    repository.start()
    assert repository.served.number == 1
    assert "saved_model.pb differs from the export" in caplog.text
    (tmp_path / "2" / "parity.json").write_text("[]")
    assert not repository.refresh()
    assert "parity.json is incomplete" in caplog.text


@pytest.mark.parametrize("kind", ["deep", "many"])
def test_folders_that_no_export_has(repository, put, tmp_path, caplog, kind, monkeypatch):
    monkeypatch.setattr("kerastl.serving.versions._MOST_FILES", 100)
    put(1), put(2)
    if kind == "deep":
        (tmp_path / "2" / "/".join("d" * 40)).mkdir(parents=True)
    else:
        for name in range(120):
            (tmp_path / "2" / str(name)).touch()
    repository.start()
    assert repository.served.number == 1
    assert "folders nested deeper than 16, which is too much for an export" in caplog.text
