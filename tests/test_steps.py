import io
import re
import sys

import pytest
from rich.console import Console

from kerastl import _steps


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal, whose text is kept."""
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(
        _steps, "Console", lambda file: Console(file=screen, force_terminal=True, width=90)
    )
    return screen


def shown(screen):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())


def test_a_pipe_gets_a_line_a_step_unless_it_is_counted(capsys):
    with _steps.step("Reading"), _steps.step("Training", 3) as advance:
        advance(1)
        _steps.say("epoch 1")
    assert capsys.readouterr() == ("", "Reading ...\nepoch 1\n")


def test_a_terminal_gets_a_row_a_step_and_what_is_said_stays_above(terminal):
    with _steps.step("Reading"), _steps.step("Training", 4) as advance:
        advance(1)
        _steps.say("epoch 1")
        _steps._live[0].refresh()
        text = shown(terminal)
    last = text.rindex("Reading")
    assert re.search(r"Reading\W+0:00:0\d *\n.*Training\W+0:00:0\d ━+.* left", text[last:])
    assert "epoch 1" in text[: text.rindex("Training")]
    assert not _steps._live


@pytest.mark.parametrize("has_widgets", [True, False])
def test_a_notebook_gets_a_bar_where_it_can_show_one(monkeypatch, capsys, has_widgets):
    console = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(_steps, "Console", lambda file: console)
    monkeypatch.setattr(_steps, "find_spec", lambda name: object() if has_widgets else None)
    monkeypatch.setattr(_steps.Progress, "start", lambda progress: None)
    with _steps.step("Reading"):
        assert bool(_steps._live) == has_widgets
    assert (capsys.readouterr().err == "Reading ...\n") != has_widgets


def test_after_an_error_the_terminal_is_given_back(terminal):
    with pytest.raises(ValueError, match="no image"), _steps.step("Reading"):
        raise ValueError("no image")
    assert not _steps._live
    assert terminal.getvalue().rstrip("\r").endswith("\x1b[?25h")  # the cursor is seen again
    with _steps.step("Training", 2):
        assert len(_steps._live[0].tasks) == 1


def test_what_is_not_to_be_shown_is_not(terminal):
    with _steps.step("Reading", shown=False) as advance:
        advance(1)
    assert terminal.getvalue() == ""
