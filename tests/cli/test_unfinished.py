import json
import os
import signal
import threading

import pytest
import typer
from filelock import FileLock

from kerastl.cli.unfinished import begin, begun, finish, finished, working_on
from kerastl.errors import DataError, ExportError

ABOUT = {"epochs": 3, "data": {"classes": ["a", "b"], "fingerprint": "1"}}


def test_what_began_nothing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with working_on(None, resume=False) as directory:
        assert directory.as_posix() == "runs/1"
        assert directory.is_dir()
    assert not list(tmp_path.iterdir())


def test_one_process_a_directory(tmp_path):
    with working_on(tmp_path / "run", resume=False) as directory:
        begin(directory, ABOUT, {})
        with (
            pytest.raises(DataError, match=r"Another process works on .*run\. Wait for it"),
            working_on(tmp_path / "run", resume=True),
        ):
            pass
    with working_on(tmp_path / "run", resume=True):
        pass
    FileLock(tmp_path / "run" / "a").acquire()  # another lock than ours does not matter
    with working_on(tmp_path / "run", resume=True) as directory:
        assert begun(directory, ABOUT) == {}


def test_resuming_begins_where_nothing_is(tmp_path):
    with working_on(tmp_path / "new" / "run", resume=True) as directory:
        assert begun(directory, ABOUT) is None
    assert not (tmp_path / "new").exists()
    (tmp_path / ".lock").touch()  # of a process that was killed before it began
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".kerastl-a1").touch()
    with working_on(tmp_path, resume=True) as directory:
        assert directory == tmp_path
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(DataError, match="holds files, and none of an unfinished run"),
        working_on(tmp_path, resume=True),
    ):
        pass
    with pytest.raises(typer.BadParameter, match="--resume needs --output"):
        working_on(None, resume=True).__enter__()
    with pytest.raises(DataError, match="is no folder"):
        working_on(tmp_path / "thesis.tex", resume=True).__enter__()


def test_other_arguments_are_refused_with_what_differs(tmp_path):
    begin(tmp_path, ABOUT, {"recipe": None})
    assert begun(tmp_path, ABOUT) == {"recipe": None}
    other = {"epochs": 4, "data": {"classes": ["a", "c"], "fingerprint": "1"}}
    with pytest.raises(DataError) as found:
        begun(tmp_path, other)
    assert 'its data.classes is ["a", "b"], not ["a", "c"]; its epochs is 3, not 4' in str(
        found.value
    )
    assert "Resume it with the same arguments and images" in str(found.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"about": 1}'])
def test_a_damaged_record_says_so(tmp_path, text):
    begin(tmp_path, ABOUT, {})
    (tmp_path / "checkpoints" / "begun.json").write_text(text)
    with pytest.raises(DataError, match=r"begun\.json is damaged"):
        begun(tmp_path, ABOUT)


def test_finished_runs(tmp_path):
    begin(tmp_path, ABOUT, {})
    assert finished(tmp_path) is None
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {}}))
    assert finished(tmp_path) is None  # killed before its page was written
    finish(tmp_path)
    assert finished(tmp_path) == {"test": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json could not be read"):
        finished(tmp_path)


def run_that_is_sent(number, output):
    with working_on(output, resume=False) as directory:
        begin(directory, ABOUT, {})
        os.kill(os.getpid(), number)
        threading.Event().wait(10)
    pytest.fail("the signal did not come")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_run_in_order(tmp_path, capsys, number, status):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as found:
        run_that_is_sent(number, tmp_path / "run")
    assert found.value.exit_code == status
    assert signal.getsignal(signal.SIGTERM) is before
    assert "--resume goes on" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run" / ".lock").exists()


def test_one_that_does_not_write_touches_nothing(tmp_path):
    with working_on(tmp_path / "run", resume=False, writes=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises((ExportError, DataError)),
        working_on(tmp_path / "file" / "run", resume=False),
    ):
        pass
