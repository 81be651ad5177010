"""Writes embeddings to files while they are computed."""

import csv
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from kerastl._atomic import atomic_path
from kerastl._checks import check_packages
from kerastl.data.file_report import csv_cell, printable
from kerastl.data.split import Split
from kerastl.errors import ArgumentError, DataError

_SUFFIXES = (".npz", ".npy", ".parquet")
_ROW_GROUP_BYTES = 2**24  # of codes: a reader of Parquet takes at least so much at a time


@dataclass(frozen=True)
class CodeRows:
    """What is known of each image but its code, in the order of the codes.

    Args:
        paths: of its file; empty where it is none.
        labels: ints `(num_images,)`, -1 where the class is not known.
        splits: `"train"`, `"validation"` or `"test"`; empty where there is no such part.
        class_names: what the labels mean; none where no class is known.
    """

    paths: list[str]
    labels: np.ndarray
    splits: list[str]
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def label_names(self) -> list[str]:
        """The name of the class of each image; empty where it is not known."""
        return ["" if label < 0 else self.class_names[label] for label in self.labels.tolist()]


def rows_of(parts: dict[str, Split], class_names: Sequence[str]) -> CodeRows:
    """Return the rows of several splits by their names, one after another."""
    paths = [path for split in parts.values() for path in split.paths or [""] * len(split)]
    labels = np.concatenate([split.labels for split in parts.values()])
    names = [name for name, split in parts.items() for _ in range(len(split))]
    return CodeRows([printable(path) for path in paths], labels, names, list(class_names))


def check_code_file(path: str | Path) -> None:
    """Raise unless codes can be written to `path`: by its ending, and since nothing is there.

    Raises:
        ArgumentError: another ending, or a package is missing.
        DataError: there is such a file.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ArgumentError(
            f"A file of embeddings must end in {', '.join(_SUFFIXES)}. Received: "
            f"{str(path)!r}. The suffix sets the file format."
        )
    if path.suffix == ".parquet":
        check_packages("A Parquet file", ["pyarrow"], "parquet")
    for file in (path, *([sidecar_of(path)] if path.suffix == ".npy" else [])):
        if file.exists():
            raise DataError(
                f"The file {str(file)!r} exists already, and kerastl does not overwrite it. "
                "Choose another name, or remove the file."
            )


def sidecar_of(path: Path) -> Path:
    """Return the CSV of paths, labels and splits that belongs to an `.npy` file."""
    return path.with_suffix(".csv")


def write_codes(
    path: str | Path, batches: Iterable[np.ndarray], rows: CodeRows, code_shape: Sequence[int]
) -> None:
    """Write codes to a file while they are computed; it is whole or not there.

    - `.npz`: arrays `codes` (float32), `labels` (int64), `class_names`, `paths` and `split`, none
      of which needs pickle;
    - `.npy`: the codes, and beside it a `.csv` of `path,label,split`;
    - `.parquet` (needs `kerastl[parquet]`): columns `path`, `label`, `split` and `code`, a list of
      fixed size; a map is one row, and `code_shape` of the file's metadata tells its shape.

    Args:
        path: of the file; its folder is there.
        batches: float32 arrays `(batch, *code_shape)`, as `stream_codes` gives them.
        rows: what else is known of each image.
        code_shape: of the code of one image.

    Raises:
        ArgumentError: another ending, or a package is missing.
        DataError: there is such a file.
        ExportError: it could not be written.
    """
    path = Path(path)
    check_code_file(path)
    shape = (len(rows), *code_shape)
    counted = _counted(batches, shape)
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            _write_parquet(temporary, counted, rows, shape)
        elif path.suffix == ".npz":
            _write_npz(temporary, counted, rows, shape)
        else:
            with open(temporary, "wb") as file:
                _stream_array(file, counted, shape)
            _write_sidecar(sidecar_of(path), rows)  # before the codes have their name


def _counted(batches: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield batches as contiguous float32; raise unless they are the rows that were announced."""
    count = 0
    for batch in batches:
        count += len(batch)
        if batch.shape[1:] != shape[1:] or count > shape[0]:
            break
        yield np.ascontiguousarray(batch, "<f4")
    else:
        if count == shape[0]:
            return
    raise ArgumentError(
        f"The codes must have the shape {shape}. Received: {count} rows or more, the last of "
        f"shape {batch.shape[1:]}. Pass the rows and the shape of these codes."
    )


def _write_npz(
    path: Path, batches: Iterator[np.ndarray], rows: CodeRows, shape: tuple[int, ...]
) -> None:
    others = {
        "labels": rows.labels.astype("<i8"),
        "class_names": np.array(rows.class_names, "U"),
        "paths": np.array(rows.paths, "U"),
        "split": np.array(rows.splits, "U"),
    }
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("codes.npy", "w", force_zip64=True) as file:
            _stream_array(file, batches, shape)
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _stream_array(file: IO[bytes], batches: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for batch in batches:
        file.write(batch.data)


def _write_parquet(
    path: Path, batches: Iterator[np.ndarray], rows: CodeRows, shape: tuple[int, ...]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    dim = int(np.prod(shape[1:]))
    code = pa.list_(pa.float32(), dim)
    columns = {"path": pa.string(), "label": pa.string(), "split": pa.string(), "code": code}
    about = {"code_shape": ",".join(map(str, shape[1:]))}
    schema = pa.schema(columns, metadata=about)
    labels = [name or None for name in rows.label_names]
    start = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for group in _grouped(batches, max(1, _ROW_GROUP_BYTES // (4 * dim))):
            end = start + len(group)
            codes = pa.FixedSizeListArray.from_arrays(pa.array(group.reshape(-1)), dim)
            known = (rows.paths[start:end], labels[start:end], rows.splits[start:end])
            writer.write_table(pa.table([*known, codes], schema=schema))
            start = end


def _grouped(batches: Iterator[np.ndarray], most: int) -> Iterator[np.ndarray]:
    """Yield the rows of batches in groups, the first ones of at least `most` rows."""
    waiting: list[np.ndarray] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= most:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _write_sidecar(path: Path, rows: CodeRows) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split"])
        told = zip(rows.paths, rows.label_names, rows.splits, strict=True)
        writer.writerows(map(csv_cell, row) for row in told)
