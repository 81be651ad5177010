"""Reads Parquet, COCO and Label Studio files as tables."""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from kerastl._checks import check_packages
from kerastl.data.parts import part_of
from kerastl.errors import DataError

_SHARD = re.compile(r"-\d+-of-\d+$")  # of Hugging Face's file names
_UPLOADED = re.compile(r"^(/data/upload/(\d+/)?|/data/local-files/\?d=)")  # by Label Studio
_written: list[tempfile.TemporaryDirectory[str]] = []
_unpacked: dict[str, tempfile.TemporaryDirectory[str]] = {}  # by their folder; removed at exit


class Table(NamedTuple):
    """A table as text."""

    header: list[str]
    rows: list[list[str]]
    source: str
    first: int
    """What the first row is called."""
    home: str
    """What the paths of images are relative to."""


def read_json(path: str) -> Table:
    """Read what COCO (`images`, `annotations`, `categories`) or Label Studio exports.

    There is a row for each label of an image, and one for an image without; boxes count as their
    class.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            found = json.load(file)
        pairs = _coco(found) if isinstance(found, dict) else _label_studio(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"A JSON file must be a COCO or Label Studio export. Received: {path!r} "
            f"({type(error).__name__}: {error}). Export it again, or pass a CSV file."
        ) from None
    rows = [list(pair) for pair in dict.fromkeys(pairs)]
    return Table(["image", "label"], rows, path, 0, os.path.dirname(path))


def _coco(found: dict[str, Any]) -> list[tuple[str, str]]:
    files = {one["id"]: one["file_name"] for one in found["images"]}
    names = {one["id"]: one["name"] for one in found["categories"]}
    pairs = [(one["image_id"], names[one["category_id"]]) for one in found["annotations"]]
    without = files.keys() - {image for image, _ in pairs}
    return [(files[image], name) for image, name in [*pairs, *((one, "") for one in without)]]


def _label_studio(found: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    pairs = []
    for task in found:
        results = [one for annotation in task["annotations"] for one in annotation["result"]]
        labels = [label for one in results for label in one["value"].get(one["type"], [])]
        image = uploaded_name(task["data"]["image"])
        pairs += [(image, str(label)) for label in labels or [""]]
    return pairs


def uploaded_name(image: str) -> str:
    """Return the name of a file that was uploaded to Label Studio."""
    return _UPLOADED.sub("", image)


def parquet_files(folder: str) -> list[str]:
    """Return the Parquet files of a folder, in their order."""
    return sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(".parquet"))


def read_parquet(paths: Sequence[str], image_column: str | None = None) -> Table:
    """Read Parquet files as one table; a file that is named as a part gives its rows that part.

    A column of images as bytes, or of Hugging Face's `{bytes, path}`, is unpacked to a temporary
    folder; the names of classes come from the metadata of Hugging Face.
    """
    check_packages("A .parquet file", ["pyarrow"], "parquet")
    header: list[str] = []
    rows: list[list[str]] = []
    home = os.path.dirname(paths[0])
    for path in paths:
        names, mine, unpacked = _read_one(path, image_column)
        part = part_of(_SHARD.sub("", os.path.splitext(os.path.basename(path))[0]))
        if part is not None and "split" not in names:
            names, mine = [*names, "split"], [[*row, part] for row in mine]
        if header and names != header:
            raise DataError(
                "The Parquet files of a dataset must have the same columns. Received: "
                f"{names} in {path!r}, {header} in {paths[0]!r}. Pass the file that you "
                "mean."
            )
        header, home = names, unpacked or home
        rows += mine
    return Table(header, rows, paths[0], 0, home)


def is_hugging_face(source: Any) -> bool:
    """Whether a source is a `datasets.Dataset`, or a dict of such by the names of parts."""
    parts = list(source.values()) if isinstance(source, dict) else [source]
    return bool(parts) and all(
        hasattr(one, "to_parquet") and hasattr(one, "features") for one in parts
    )


def write_hugging_face(source: Any) -> str:
    """Write the Parquet files of a data set to a temporary folder, and return that."""
    folder = temporary_folder()
    for part, one in source.items() if isinstance(source, dict) else [("data", source)]:
        one.to_parquet(os.path.join(folder, f"{part}.parquet"))
    return folder


def temporary_folder() -> str:
    """Return a new folder that is there until the process ends."""
    _written.append(tempfile.TemporaryDirectory(prefix="kerastl-"))
    return _written[-1].name


def _read_one(path: str, image_column: str | None) -> tuple[list[str], list[list[str]], str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"Cannot read {path!r} as Parquet ({error}). Download or export the file again."
        ) from None
    with file:
        schema = file.schema_arrow
        folder = ""
        images = [
            field.name
            for field in schema
            if pa.types.is_binary(field.type)
            or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        ]
        image = image_column if image_column in images else next(iter(images), None)
        kept = [name for name in schema.names if name == image or name not in images]
        classes = _class_labels(schema.metadata or {})
        if image is not None:
            folder = _folder_of(path)
        rows: list[list[str]] = []
        for batch in file.iter_batches(columns=kept, batch_size=256):
            for row in batch.to_pylist():
                if image is not None:
                    row[image] = _unpack(row[image], path, len(rows), folder)
                cells = [_cell(row[name], classes.get(name)) for name in kept]
                rows.append(cells)
    header = ["image" if name == image != image_column else name for name in kept]
    return header, rows, os.path.dirname(folder)


def _folder_of(path: str) -> str:
    """Return the folder of the images of a file, beside those of the files beside it."""
    key = os.path.dirname(os.path.realpath(path))
    if key not in _unpacked:
        _unpacked[key] = tempfile.TemporaryDirectory(prefix="kerastl-")
    folder = os.path.join(_unpacked[key].name, os.path.basename(path))
    os.makedirs(folder, exist_ok=True)
    return folder


def _unpack(value: Any, path: str, row: int, folder: str) -> str:
    """Write the bytes of an image, and return its name relative to the folder of all files.

    One that Hugging Face has as a path alone stays where it is.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not data and isinstance(value, dict) and os.path.isfile(value.get("path") or ""):
        return os.path.abspath(value["path"])
    if not data:
        raise DataError(
            f"Each row needs an image. Received: no bytes in row {row} of {path!r}. Remove "
            "the row, or pass a column of paths."
        )
    name = f"{row:07}"
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)
    return os.path.join(os.path.basename(path), name)


def _class_labels(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes of columns, as Hugging Face writes them beside the data."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _cell(value: Any, classes: list[str] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps([_cell(one, classes) for one in value], ensure_ascii=False)
    return classes[value] if classes and isinstance(value, int) else str(value)
