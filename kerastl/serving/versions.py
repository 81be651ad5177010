"""The numbered versions of a model in one folder, each whole or not there."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from kerastl._atomic import flush_to_disk
from kerastl._checks import check_int
from kerastl.errors import ArgumentError, ExportError

_PREFIX = ".writing-"
_LEFT_OVER = 86_400  # seconds after which an unfinished version has nobody who writes it


def versions_in(directory: str | Path) -> list[int]:
    """Return the numbers of the SavedModels in a folder, the newest last."""
    found = Path(directory).glob("*/saved_model.pb")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdecimal())


def version_path(directory: Path, version: int | None) -> Path:
    """Return the path of a version that is not there yet: `version`, or the next free number."""
    if version is None:
        taken = [int(p.name) for p in directory.glob("*") if p.name.isdecimal()]
        version = max(taken, default=0) + 1
    check_int("version", version, 1)
    target = directory / str(version)
    if target.exists():
        raise ArgumentError(
            f"Version {version} is in {directory} already. Leave `version` out for the next one."
        )
    return target


@contextlib.contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """Give a folder to write, which becomes `target` when the block ends well.

    Servers look for folders named by a number, so that they never see half of one.

    Raises:
        ExportError: it could not be written.
    """
    directory = target.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER:
                    shutil.rmtree(path, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))
        try:
            yield partial
            partial.chmod(0o755)
            for path in [*partial.rglob("*"), partial]:
                flush_to_disk(path)
            os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, tf.errors.ResourceExhaustedError) as error:  # the latter for a full disk
        raise ExportError(
            f"The export could not be written to {target}: {error}. Earlier versions are whole. "
            "Make room, or choose another folder, and run it again."
        ) from error
