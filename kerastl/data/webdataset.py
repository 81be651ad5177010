"""Reads WebDataset shards, tar files of `KEY.jpg` with `KEY.cls` or `KEY.json`, as a table."""

import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from kerastl.data.exports import Table, temporary_folder
from kerastl.data.file_report import printable
from kerastl.data.parts import part_of
from kerastl.errors import DataError

ENDINGS = (".tar", ".tar.gz", ".tgz")
_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
_LABELS = ("cls", "txt", "label")
_NUMBER = re.compile(r"[-_.]?\d+$")
_LARGEST_TEXT = 2**20  # bytes of a label
_WAY_OUT = "Download the file again, or unpack it and pass the folder or a CSV."


def is_shard(path: str) -> bool:
    """Whether a path ends as that of a tar."""
    return path.lower().endswith(ENDINGS)


def shards_in(folder: str) -> list[str]:
    """Return the tars of a folder that holds no folder, in their order."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    if any(entry.is_dir() for entry in entries):
        return []
    return sorted(entry.path for entry in entries if is_shard(entry.name))


def read_shards(paths: Sequence[str]) -> Table:
    """Read shards as one table: the key, the image, the label, and what JSON says of each sample.

    They are streamed, and images are written to a temporary folder under names of our own, so that
    no name of a member is a path. A shard that is named as a part, as `train-0001.tar` is, gives
    its samples that part.
    """
    folder = temporary_folder()
    samples: list[dict[str, str]] = []
    for number, path in enumerate(paths):
        stem = os.path.basename(path).split(".")[0]
        part = part_of(_NUMBER.sub("", stem))
        target = os.path.join(folder, str(number))
        os.makedirs(target)
        split = {"split": part} if part else {}
        samples += [sample | split for sample in _samples(path, target)]
    header = list(dict.fromkeys(name for sample in samples for name in sample))
    if samples and not set(header) - {"image", "key", "split"}:
        raise DataError(
            "A WebDataset shard must contain .cls or .json files next to the images. "
            f"Received: none in {printable(paths[0])!r}. {_WAY_OUT}"
        )
    if not samples:
        raise DataError(f"There is no image in {printable(paths[0])!r}. {_WAY_OUT}")
    rows = [[sample.get(name, "") for name in header] for sample in samples]
    return Table(header, rows, paths[0], 0, folder)


def _samples(path: str, target: str) -> Iterator[dict[str, str]]:
    """Yield what is told of each image; members of one key stand together."""
    limit = shutil.disk_usage(tempfile.gettempdir()).free // 2
    key, sample = "", dict[str, str]()
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if not member.isreg() or name.startswith("."):
                    continue
                own, _, ending = name.partition(".")
                found = f"{os.path.dirname(member.name)}/{own}"
                if found != key:
                    yield from _whole(sample)
                    key, sample = found, {"image": "", "key": printable(own)}
                kind = ending.rsplit(".", 1)[-1].lower()
                if kind in _IMAGES and not sample["image"]:
                    limit -= member.size
                    if limit < 0:
                        raise DataError(
                            f"The images of {path!r} take more than half of the disk that is free "
                            f"in {tempfile.gettempdir()}. Set TMPDIR to a larger one."
                        )
                    file = os.path.join(target, f"{member.offset:012}.{kind}")
                    with open(file, "wb") as copy:
                        shutil.copyfileobj(_open(tar, member), copy)
                    sample["image"] = os.path.join(os.path.basename(target), os.path.basename(file))
                elif kind == "cls" or (kind in _LABELS and "label" not in sample):
                    sample["label"] = _text(tar, member).strip()
                elif kind == "json":
                    sample.update(_cells(json.loads(_text(tar, member))))
            yield from _whole(sample)
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(
            f"Cannot read {printable(path)!r} as a WebDataset tar file ({error}). {_WAY_OUT}"
        ) from None


def _whole(sample: dict[str, str]) -> Iterator[dict[str, str]]:
    if sample.get("image"):
        yield sample


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    return tar.extractfile(member)  # of a regular file it is never None


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _LARGEST_TEXT:
        raise ValueError(f"{printable(member.name)} has {member.size:,} bytes")
    text: str = _open(tar, member).read().decode("utf-8")
    return text


def _cells(found: Any) -> dict[str, str]:
    """Return what JSON says, as cells by their names; a value alone is the label."""
    if not isinstance(found, dict):
        found = {"label": found}
    own = ("image", "key")
    return {
        str(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
        if name not in own and value is not None
    }
