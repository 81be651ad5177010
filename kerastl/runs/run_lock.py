"""Locks a run directory for one process, and checks whether a run can be resumed."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kerastl._atomic import remove_leftovers
from kerastl._reading import parse_json, read_text
from kerastl.errors import ArgumentError, DataError, ExportError
from kerastl.results.run_files import Json, RunFiles, new_run_directory, read_object
from kerastl.training.trials import SEARCH_FILE, diff_settings

LOCK = ".lock"
BEGUN = Path(RunFiles.CHECKPOINTS) / "begun.json"


@contextlib.contextmanager
def locked_run_directory(
    output: str | Path | None, *, resume: bool = False, writes: bool = True
) -> Iterator[Path]:
    """Yield the directory of a run, for this process alone; one that does not write locks nothing.

    Args:
        output: the folder; None for the next free `runs/N`.
        resume: whether to go on with what is there, if anything is.
        writes: whether this process is the one that writes.

    Raises:
        ArgumentError: there is no directory to resume in.
        DataError: another process works there, or it holds what is no unfinished run.
        ExportError: it cannot be written to.
    """
    if not writes:
        yield Path(output or ".")
        return
    directory = _resumable(output) if resume else new_run_directory(output)
    with _locked(directory):
        remove_leftovers(directory)
        yield directory


def _resumable(output: str | Path | None) -> Path:
    """Return the folder of a run to go on with, or to begin where nothing is yet."""
    if output is None:
        raise ArgumentError("--resume needs --output with the directory of the run.")
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is not a folder. Pass the run directory as `--output`.")
    # A kill may leave empty folders, the lock, and files half written under a hidden name.
    held = (path for path in output.rglob("*") if path.is_file() and path.name[0] != ".")
    if any(held) and not is_begun(output):
        raise DataError(
            f"{output} contains files, but no unfinished run. Choose another `--output`."
        )
    return output


def is_begun(directory: Path) -> bool:
    """Return whether a directory contains a run that can be resumed."""
    names = (BEGUN, RunFiles.METRICS, SEARCH_FILE, RunFiles.CHAIN)
    return any((directory / name).is_file() for name in names)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, blocking=False)
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"Another process uses {directory}. Wait for it, or choose another `--output`."
        ) from error
    except OSError as error:
        raise ExportError(f"Cannot write to {directory}: {error}.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink()
        lock.release()
        for path in made:  # where nothing was begun, nothing is left
            with contextlib.suppress(OSError):
                path.rmdir()


def read_plan(directory: Path, asked: Json) -> Json | None:
    """Return the plan of a started run, or None.

    Raises:
        DataError: it was begun otherwise than `asked`, plain values two levels deep; the error
            tells what differs.
    """
    path = directory / BEGUN
    try:
        record = parse_json(read_text(path))
        differing = diff_settings(record["asked"], json.loads(json.dumps(asked)))
        plan: Json = record["plan"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged ({error}), so kerastl does not know how the run started. "
            f"Remove {directory}, or choose another `--output`, and train again."
        ) from error
    if differing:
        raise DataError(
            f"The run in {directory} was started differently: its "
            f"{'; its '.join(differing)}. Resume it with the same arguments and images, or "
            "choose another `--output`."
        )
    return plan


def write_plan(directory: Path, asked: Json, plan: Json) -> None:
    """Store the settings and the plan, which a resumed run uses."""
    (directory / BEGUN).parent.mkdir(parents=True, exist_ok=True)
    RunFiles(directory).write(str(BEGUN), {"asked": asked, "plan": plan})


def is_finished(directory: Path, name: str = RunFiles.METRICS) -> bool:
    """Return whether a run (a chain, by the name of its file) has come to its end.

    One that was killed after its measures, before its page was written, has not.
    """
    if (directory / BEGUN).exists():
        return False
    return read_object(directory / name, "Remove it, and resume.") is not None


def mark_done(directory: Path) -> None:
    """Remove what only an unfinished run needs; everything else is there."""
    (directory / BEGUN).unlink(missing_ok=True)
    shutil.rmtree(directory / RunFiles.CHECKPOINTS, ignore_errors=True)
