import os
import time

import pytest

from kerastl.errors import ArgumentError, ExportError
from kerastl.serving.versions import version_path, versions_in, written_beside


def test_versions_are_numbers_that_hold_a_saved_model(tmp_path):
    for name in ("2", "10", "x", ".writing-1", "٣", "03", "0", "9" * 200):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "11").mkdir()
    assert versions_in(tmp_path) == [2, 10]
    assert versions_in(tmp_path / "none") == []


def test_the_next_number_is_after_all_that_are_taken(tmp_path):
    assert version_path(tmp_path, None) == tmp_path / "1"
    (tmp_path / "11").mkdir()
    assert version_path(tmp_path, None) == tmp_path / "12"
    with pytest.raises(ArgumentError, match="Version 11 exists in .* already"):
        version_path(tmp_path, 11)


def test_what_fails_leaves_nothing_and_what_ends_well_has_its_name(tmp_path):
    with (
        pytest.raises(ExportError, match="Cannot write"),
        written_beside(tmp_path / "1") as partial,
    ):
        (partial / "missing" / "file").touch()
    assert list(tmp_path.iterdir()) == []
    with written_beside(tmp_path / "1") as partial:
        (partial / "file").write_text("whole")
        assert not (tmp_path / "1").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o755


def test_two_that_take_one_number(tmp_path):
    theirs = tmp_path / "1" / "theirs"
    with pytest.raises(ExportError, match="Cannot write"), written_beside(tmp_path / "1"):
        theirs.mkdir(parents=True)
    assert theirs.is_dir()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ExportError, match="Earlier versions are unchanged"),
        written_beside(tmp_path / "file" / "1"),
    ):
        pass


def test_what_a_kill_left_long_ago_is_removed(tmp_path):
    for name, age in ((".writing-old", 90_000), (".writing-new", 10)):
        (tmp_path / name).mkdir()
        then = time.time() - age
        os.utime(tmp_path / name, (then, then))
    with written_beside(tmp_path / "1"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".writing-new", "1"}
