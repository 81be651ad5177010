import json
import os

import pytest

from kerastl._atomic import atomic_path, atomic_write_json, atomic_write_text, remove_leftovers
from kerastl.errors import ExportError


def test_a_file_is_written_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write_text(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    with atomic_path(tmp_path / "model.keras") as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".keras")
        assert partial.name.startswith(".writing-")
        partial.write_bytes(b"x")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "model.keras"]


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(ExportError, match=r"write .*a\.txt: .*No space left.*Free some"):
        atomic_write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(ExportError, match="Cannot write"):
        atomic_write_json(tmp_path / "no" / "folder.json", {})


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.txt"):
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_a_link_of_the_temporary_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("kerastl._atomic.secrets.token_hex", lambda _: "0")
    (tmp_path / "target").write_text("theirs")
    (tmp_path / ".writing-0-a.txt").symlink_to(tmp_path / "target")
    with pytest.raises(ExportError, match="File exists"):
        atomic_write_text(tmp_path / "a.txt", "ours")
    assert (tmp_path / "target").read_text() == "theirs"


def test_json_holds_no_numbers_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"loss": float("nan")})
    atomic_write_json(tmp_path / "a.json", {"loss": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 0.5}


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / ".writing-1-0.json").touch()
    (tmp_path / ".writing-2").mkdir()  # of an export, which cleans up after itself
    (tmp_path / "a.json").touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".writing-2", "a.json", "trials"]
    assert not os.listdir(tmp_path / "trials")
