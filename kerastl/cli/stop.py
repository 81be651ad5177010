"""Handles Ctrl-C and SIGTERM with a message and an exit status."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from kerastl.cli.console import say


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM has come."""


@contextlib.contextmanager
def stopping_in_order(
    output: Path | None, *, resume: bool = False, writes: bool = True
) -> Iterator[Path | None]:
    """Yield the run directory; say how to go on with the run if Ctrl-C or SIGTERM comes.

    Without an output it is the next free `runs/N`. A process that does not write it only stops.

    Raises:
        typer.Exit: SIGTERM (status 143) or Ctrl-C (130) came.
    """
    from kerastl.results.run_files import new_run_directory
    from kerastl.runs.run_lock import is_begun

    directory = new_run_directory(output) if writes and not resume else output
    try:
        with _sigterm_raises():
            yield directory
    except KeyboardInterrupt as stop:
        if writes and directory is not None and is_begun(directory):
            say(f"Stopped. To continue, run the same command with --output {directory} --resume.")
        else:
            say("Stopped.")
        raise typer.Exit(143 if isinstance(stop, _TerminatedError) else 130) from None


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open is closed."""

    def stop(number: int, frame: Any) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
