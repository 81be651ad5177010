import os
import signal
import threading

import pytest
import typer

from kerastl.cli.stop import stopping_in_order
from kerastl.runs.run_lock import locked_run_directory, write_plan


def run_that_is_sent(number, output):
    with stopping_in_order(output) as directory, locked_run_directory(directory):
        write_plan(directory, {}, {})
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
    assert "--resume." in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run" / ".lock").exists()


def test_where_nothing_was_begun_there_is_nothing_to_go_on_with(tmp_path, capsys):
    with pytest.raises(typer.Exit), stopping_in_order(tmp_path / "run"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Stopped.\n"
