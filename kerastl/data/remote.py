"""Copies files from other file systems (`gs://`, `s3://`, `hf://`) to the cache."""

import json
import os
import posixpath
import shutil
import tempfile
from pathlib import Path
from typing import Any

from kerastl._cache import CACHE_DIR, cache_directory
from kerastl._checks import check_packages
from kerastl._hashing import sha256_of_bytes
from kerastl.errors import DataError

_TABLES = (".csv", ".tsv", ".json", ".yaml", ".yml")  # whose images lie beside them


def is_remote(path: str) -> bool:
    """Whether a path is a URL of a file system."""
    return "://" in path


def local_copy(url: str) -> str:
    """Return the path of a copy of a folder or file, made when it is not there or has changed.

    With a table its folder is copied.

    Raises:
        ArgumentError: fsspec is not installed.
        DataError: there is nothing, it cannot be read, or there is no room for it.
    """
    check_packages("A path of another file system", ["fsspec"], "cloud")
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        is_table = path.lower().endswith(_TABLES)
        root = posixpath.dirname(path) if is_table else path
        files = system.find(root, detail=True)
    except Exception as error:  # of whatever store it is
        raise _unreadable(url, error) from error
    if not files:
        raise DataError(f"There is no file at {url!r}. Check the spelling.")
    names = {name: _relative(name, root, url) for name in files}
    stamps = [[names[name], *_stamp(files[name])] for name in sorted(files)]
    key = sha256_of_bytes(json.dumps([url, stamps]).encode())[:32]
    target = cache_directory() / "data" / key
    if not target.exists():
        _download(system, names, sum(int(one.get("size") or 0) for one in files.values()), target)
    inside = os.path.relpath(path, root) if is_table else names[next(iter(files))]
    is_file = is_table or (len(files) == 1 and next(iter(files)).strip("/") == path.strip("/"))
    return str(target / inside) if is_file else str(target)


def _download(system: Any, names: dict[str, str], num_bytes: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if num_bytes > free // 2:
        raise DataError(
            f"The images take {num_bytes:,} bytes, more than half of the {free:,} that are "
            f"free in {target.parent}. Set {CACHE_DIR} to another folder."
        )
    with tempfile.TemporaryDirectory(dir=target.parent) as partial:
        for name, inside in names.items():
            file = Path(partial) / "data" / inside
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with system.open(name, "rb") as source, file.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            except Exception as error:  # of whatever store it is
                raise _unreadable(name, error) from error
        os.replace(Path(partial) / "data", target)  # whole, or not there


def _relative(name: str, root: str, url: str) -> str:
    """Return the name of a file inside the copy; one that would lie outside is refused."""
    inside = posixpath.relpath(name, root) if name.strip("/") != root.strip("/") else ""
    inside = inside or posixpath.basename(name)
    if inside.startswith(("/", "..")):
        raise DataError(
            f"{url!r} lists {name!r}, which is outside of it. Pass the folder that contains it."
        )
    return inside


def _stamp(info: dict[str, Any]) -> list[str]:
    """Return what changes when a file does, as far as its store tells."""
    known = ("size", "ETag", "etag", "mtime", "updated", "LastModified", "created", "sha256")
    return [str(info[name]) for name in known if info.get(name) is not None]


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        f"Cannot read {name!r} ({type(error).__name__}: {error}). Check the spelling and the "
        "credentials, and install the package of the store, such as gcsfs or s3fs."
    )
