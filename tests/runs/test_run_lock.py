import json

import pytest
from filelock import FileLock

from kerastl.errors import ArgumentError, DataError, ExportError
from kerastl.runs.run_lock import (
    is_finished,
    locked_run_directory,
    mark_done,
    read_plan,
    write_plan,
)

ASKED = {"epochs": 3, "data": {"classes": ["a", "b"], "fingerprint": "1"}}


def test_what_began_nothing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with locked_run_directory(None, resume=False) as directory:
        assert directory.as_posix() == "runs/1"
        assert directory.is_dir()
    assert not list(tmp_path.iterdir())


def test_one_process_a_directory(tmp_path):
    with locked_run_directory(tmp_path / "run", resume=False) as directory:
        write_plan(directory, ASKED, {})
        with (
            pytest.raises(DataError, match=r"Another process uses .*run\. Wait for it"),
            locked_run_directory(tmp_path / "run", resume=True),
        ):
            pass
    with locked_run_directory(tmp_path / "run", resume=True):
        pass
    FileLock(tmp_path / "run" / "a").acquire()  # another lock than ours does not matter
    with locked_run_directory(tmp_path / "run", resume=True) as directory:
        assert read_plan(directory, ASKED) == {}


def test_resuming_begins_where_nothing_is(tmp_path):
    with locked_run_directory(tmp_path / "new" / "run", resume=True) as directory:
        assert read_plan(directory, ASKED) is None
    assert not (tmp_path / "new").exists()
    (tmp_path / ".lock").touch()  # of a process that was killed before it began
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".kerastl-a1").touch()
    with locked_run_directory(tmp_path, resume=True) as directory:
        assert directory == tmp_path
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(DataError, match="contains files, but no unfinished run"),
        locked_run_directory(tmp_path, resume=True),
    ):
        pass
    with pytest.raises(ArgumentError, match="--resume needs --output"):
        locked_run_directory(None, resume=True).__enter__()
    with pytest.raises(DataError, match="is not a folder"):
        locked_run_directory(tmp_path / "thesis.tex", resume=True).__enter__()


def test_other_arguments_are_refused_with_what_differs(tmp_path):
    write_plan(tmp_path, ASKED, {"recipe": None})
    assert read_plan(tmp_path, ASKED) == {"recipe": None}
    other = {"epochs": 4, "data": {"classes": ["a", "c"], "fingerprint": "1"}}
    with pytest.raises(DataError) as found:
        read_plan(tmp_path, other)
    assert 'its data.classes is ["a", "b"], not ["a", "c"]; its epochs is 3, not 4' in str(
        found.value
    )
    assert "Resume it with the same arguments and images" in str(found.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"asked": 1}'])
def test_a_damaged_record_says_so(tmp_path, text):
    write_plan(tmp_path, ASKED, {})
    (tmp_path / "checkpoints" / "begun.json").write_text(text)
    with pytest.raises(DataError, match=r"begun\.json is damaged"):
        read_plan(tmp_path, ASKED)


def test_finished_runs(tmp_path):
    write_plan(tmp_path, ASKED, {})
    assert not is_finished(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {}}))
    assert not is_finished(tmp_path)  # killed before its page was written
    mark_done(tmp_path)
    assert is_finished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"Cannot read .*metrics\.json.*Remove it, and resume"):
        is_finished(tmp_path)


def test_a_killed_process_leaves_no_half_files(tmp_path):
    write_plan(tmp_path, ASKED, {})
    (tmp_path / "checkpoints" / ".writing-1-000000.npz").touch()
    with locked_run_directory(tmp_path, resume=True):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [
            ".lock", "begun.json", "checkpoints",
        ]  # fmt: skip


def test_one_that_does_not_write_touches_nothing(tmp_path):
    with locked_run_directory(tmp_path / "run", resume=False, writes=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises((ExportError, DataError)),
        locked_run_directory(tmp_path / "file" / "run", resume=False),
    ):
        pass
