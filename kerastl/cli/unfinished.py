"""A run directory while a command works on it: locked, resumable, left in order when it stops."""

import contextlib
import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from kerastl.cli.console import say

CHECKPOINTS = "checkpoints"
BEGUN = "begun.json"
FINISHED = "metrics.json"
SEARCH = "search.json"
CHAIN = "chain.json"
LOCK = ".lock"


@contextlib.contextmanager
def working_on(output: Path | None, *, resume: bool, writes: bool = True) -> Iterator[Path]:
    """Give the directory of a run, to this process alone, until the run ends or is stopped.

    Args:
        output: The folder; None for the next free `runs/N`.
        resume: Whether to go on with what is there, if anything is.
        writes: Whether this process is the one that writes; another one gets no folder.

    Raises:
        DataError: The folder is another process's, or holds what is no unfinished run.
        typer.Exit: SIGTERM (status 143) or Ctrl-C (130) came.
    """
    from kerastl.results.run_directory import new_run_directory

    if not writes:
        directory = Path()
    elif resume:
        directory = _resumable(output)
    else:
        directory = new_run_directory(output)
    try:
        with _locked(directory) if writes else contextlib.nullcontext(), _sigterm_raises():
            yield directory
    except (KeyboardInterrupt, _TerminatedError) as stop:
        if writes and _is_begun(directory):
            say(f"Stopped. The same command with --output {directory} --resume goes on.")
        else:
            say("Stopped.")
        raise typer.Exit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None


def _resumable(output: Path | None) -> Path:
    """Return the folder of a run to go on with, or to begin where nothing is yet."""
    from kerastl.errors import DataError

    if output is None:
        raise typer.BadParameter("--resume needs --output with the directory of the run.")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is no folder. Give the run directory as `--output`.")
    # A kill may leave empty folders, the lock, and files half written under a hidden name.
    held = (path for path in output.rglob("*") if path.is_file() and path.name[0] != ".")
    if any(held) and not _is_begun(output):
        raise DataError(
            f"{output} holds files, and none of an unfinished run. Choose another `--output`."
        )
    return output


def _is_begun(directory: Path) -> bool:
    begun = (f"{CHECKPOINTS}/{BEGUN}", FINISHED, SEARCH, CHAIN)
    return any((directory / name).is_file() for name in begun)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    from kerastl.errors import DataError, ExportError

    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, blocking=False)
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"Another process works on {directory}. Wait for it, or choose another `--output`."
        ) from error
    except OSError as error:
        raise ExportError(f"{directory} cannot be written to: {error}.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink()
        lock.release()
        for path in made:  # where nothing was begun, nothing is left
            with contextlib.suppress(OSError):
                path.rmdir()


class _TerminatedError(BaseException):
    """SIGTERM has come."""


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


def begun(directory: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was decided when a run began, or None where none has.

    Args:
        directory: Of the run.
        about: All that decides its result, as plain values two levels deep.

    Raises:
        DataError: It was begun otherwise; the error tells what differs.
    """
    from kerastl.errors import DataError
    from kerastl.training.trials import diff_settings

    path = directory / CHECKPOINTS / BEGUN
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        differing = diff_settings(record["about"], json.loads(json.dumps(about)))
        decided: dict[str, Any] = record["decided"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}), so it cannot be told how the run began. Remove "
            f"{directory}, or choose another `--output`, and train from the start."
        ) from error
    if differing:
        raise DataError(
            f"The run in {directory} began otherwise: its {'; its '.join(differing)}. Resume it "
            "with the same arguments and images, or choose another `--output`."
        )
    return decided


def begin(directory: Path, about: dict[str, Any], decided: dict[str, Any]) -> None:
    """Keep what was decided, which a resumed run goes by."""
    from kerastl.results.run_directory import write_json

    folder = directory / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BEGUN, {"about": about, "decided": decided})


def finished(directory: Path, name: str = FINISHED) -> dict[str, Any] | None:
    """Return the measures of a finished run, or None of one that is not.

    One that was killed after them, before its page was written, is not.
    """
    from kerastl.errors import DataError

    if (directory / CHECKPOINTS / BEGUN).exists():
        return None
    path = directory / name
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} could not be read: {error}. Remove it, and resume.") from error
    return found


def finish(directory: Path) -> None:
    """Remove what only an unfinished run needs; all else is there."""
    (directory / CHECKPOINTS / BEGUN).unlink(missing_ok=True)
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
