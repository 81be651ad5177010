"""The numbered versions of a model in a folder, each complete or absent."""

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
from kerastl._hashing import sha256_of_file
from kerastl._reading import parse_json, read_text
from kerastl._records import from_dict
from kerastl.data.options import AS_ALWAYS, PixelRules
from kerastl.errors import ArgumentError, DataError, ExportError

CERTIFICATE = "parity.json"
"""The last file of an export, which names all others with their SHA-256."""
_PREFIX = ".writing-"
_DEEPEST, _MOST_FILES = 16, 10_000  # folders and files of a version
_LEFT_OVER = 86_400  # seconds after which an unfinished version has nobody who writes it


def versions_in(directory: str | Path) -> list[int]:
    """Return the numbers of the SavedModels in a folder, the newest last."""
    found = Path(directory).glob("*/saved_model.pb")
    return sorted(int(path.parent.name) for path in found if _is_number(path.parent.name))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name[0] != "0" and len(name) <= 18


FolderState = frozenset[tuple[str, int, int]]
"""Path, bytes and time stamp of each file below a folder."""


def folder_state(folder: Path) -> FolderState:
    """Return what is in the folder of a version, which tells whether anything in it has changed.

    Raises:
        DataError: folders are nested deeper than an export has them, or hold too many files.
    """
    found: list[tuple[str, int, int]] = []
    folders = [(str(folder), 0)]
    while folders:
        path, depth = folders.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                about = entry.stat(follow_symlinks=False)
                found.append((entry.path, about.st_size, about.st_mtime_ns))
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, depth + 1))
            if depth > _DEEPEST or len(found) > _MOST_FILES:
                raise DataError(
                    f"{folder} holds more than {_MOST_FILES:,} files, or folders nested "
                    f"deeper than {_DEEPEST}, which is too much for an export."
                )
    return frozenset(found)


def what_is_lacking(folder: Path) -> str | None:
    """Return what an export lacks, or has otherwise than it was written, in words; None if nothing.

    What was exported by others, without a certificate, cannot be told to be incomplete.
    """
    certificate = folder / CERTIFICATE
    try:
        digests = parse_json(read_text(certificate))["sha256"].items()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{certificate} is incomplete."
    for name, digest in digests:
        file = folder / name
        if not file.is_file():
            return f"{file} is missing."
        if sha256_of_file(file) != digest:
            return f"{file} differs from the export."
    return None


def rules_in(folder: Path) -> PixelRules:
    """Return how images become pixels for an export, by its certificate; as always without one."""
    certificate = folder / CERTIFICATE
    try:
        return from_dict(PixelRules, parse_json(read_text(certificate)).get("pixels", {}))
    except FileNotFoundError:
        return AS_ALWAYS
    except (OSError, ValueError, AttributeError, ArgumentError) as error:
        raise DataError(f"{certificate} is damaged: {error}. Export the model again.") from error


def version_path(directory: Path, version: int | None) -> Path:
    """Return the path of a version that is not there yet: `version`, or the next free number."""
    if version is None:
        taken = [int(path.name) for path in directory.glob("*") if _is_number(path.name)]
        version = max(taken, default=0) + 1
    check_int("version", version, 1)
    target = directory / str(version)
    if target.exists():
        raise ArgumentError(
            f"Version {version} exists in {directory} already. Leave out `version` to use "
            "the next number."
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
            f"Cannot write the export to {target}: {error}. Earlier versions are unchanged. "
            "Free some disk space, or choose another folder, and run it again."
        ) from error
