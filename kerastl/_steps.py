"""Shows the progress of long work: a bar on a terminal or in a notebook, otherwise a line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[float], None]
"""Moves the bar of a step to how much of its total is done."""

_live: list[Progress] = []  # the display, while there is one: steps within steps are rows of it


class _IfCounted(ProgressColumn):
    """A column of those steps whose total is known."""

    def __init__(self, column: ProgressColumn):
        super().__init__()
        self._column = column

    def render(self, task: Task) -> object:  # type: ignore[override]
        return Text("") if task.total is None else self._column(task)


def _has_widgets() -> bool:
    """Whether a notebook can show a bar; without the package rich warns at each step."""
    return find_spec("ipywidgets") is not None


@contextmanager
def step(text: str, total: float | None = None, *, shown: bool = True) -> Iterator[Advance]:
    """Name a stretch of work on stderr while it lasts.

    On a terminal, and in a notebook with ipywidgets, it has the time that it takes and, with a
    total, a bar and the time left, and goes when the work is done; elsewhere it is a line.

    Args:
        text: what is done, such as "Reading the images".
        total: of what is counted. Default: nothing is.
        shown: whether to show anything.
    """
    console = Console(file=sys.stderr)
    if not shown or not (console.is_terminal or (console.is_jupyter and _has_widgets())):
        if shown and total is None:
            say(f"{text} ...")
        yield lambda done: None
        return
    outer = not _live
    if outer:
        columns = (BarColumn(24), TimeRemainingColumn(compact=True), TextColumn("left"))
        _live.append(
            Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                *map(_IfCounted, columns),
                console=console,
                transient=True,
            )
        )
        _live[0].start()
    progress = _live[0]
    row = progress.add_task(text, total=total)
    try:
        yield lambda done: progress.update(row, completed=done)
    finally:
        progress.remove_task(row)
        if outer:
            progress.stop()
            _live.clear()


def say(line: str) -> None:
    """Tell a person something on stderr, above what is shown of a step."""
    print(line, file=sys.stderr)  # noqa: T201
