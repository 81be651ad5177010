import csv
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from kerastl.errors import ArgumentError, DataError, ExportError
from kerastl.frozen.code_files import CodeRows, check_code_file, write_codes

NAMES = ["ants", "naïve, \"bees\""]  # fmt: skip
ENDINGS = [".npz", ".npy", ".parquet"]


def rows_of(count, class_names=NAMES):
    labels = np.arange(count) % 2 if class_names else np.full(count, -1)
    paths = [f"dir/ümlaut, {index}.jpg" for index in range(count)]
    return CodeRows(paths, labels, ["train"] * (count - 1) + ["test"], class_names)


def codes_of(count, shape=(5,)):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


def batches_of(codes, size=4):
    return (codes[start : start + size] for start in range(0, len(codes), size))


def read(path):
    """Codes, labels as names, paths and splits of a file, read as others would."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            names = file["class_names"]
            labels = [names[label] if label >= 0 else "" for label in file["labels"]]
            return file["codes"], labels, file["paths"].tolist(), file["split"].tolist()
    if path.suffix == ".npy":
        with open(path.with_suffix(".csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = [[row[name] for row in rows] for name in ("label", "path", "split")]
        return (np.load(path, allow_pickle=False), *columns)
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(path)
    columns = [table[name].to_pylist() for name in ("label", "path", "split")]
    columns[0] = [label or "" for label in columns[0]]
    shape = tuple(map(int, table.schema.metadata[b"code_shape"].decode().split(",")))
    assert table.schema.field("code").type.list_size == np.prod(shape)
    return (np.stack(table["code"].to_numpy()).reshape(-1, *shape), *columns)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_what_is_written_is_read(ending, shape, tmp_path):
    codes, rows = codes_of(11, shape), rows_of(11)
    path = tmp_path / f"codes{ending}"
    write_codes(path, batches_of(codes), rows, shape)
    found, labels, paths, splits = read(path)
    np.testing.assert_array_equal(found, codes)
    assert found.dtype == np.float32
    assert (labels, paths, splits) == (rows.label_names, rows.paths, rows.splits)
    assert {name.name for name in tmp_path.iterdir()} <= {path.name, "codes.csv"}
    with pytest.raises(DataError, match="does not overwrite it"):
        write_codes(path, batches_of(codes), rows, shape)


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_without_labels(ending, tmp_path):
    path = tmp_path / f"codes{ending}"
    write_codes(path, batches_of(codes_of(3)), rows_of(3, []), (5,))
    assert read(path)[1] == ["", "", ""]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failure_leaves_nothing(ending, tmp_path):
    def failing():
        yield codes_of(4)
        raise RuntimeError("an image changed")

    with pytest.raises(RuntimeError, match="an image changed"):
        write_codes(tmp_path / f"codes{ending}", failing(), rows_of(9), (5,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [8, 10])
def test_another_number_of_codes_is_refused(count, tmp_path):
    with pytest.raises(ArgumentError, match=r"must have the shape \(9, 5\)"):
        write_codes(tmp_path / "codes.npz", batches_of(codes_of(count)), rows_of(9), (5,))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ExportError, match="Cannot write"):
        write_codes(tmp_path / "no" / "codes.npy", batches_of(codes_of(3)), rows_of(3), (5,))


@pytest.mark.parametrize("ending", ENDINGS)
def test_memory_does_not_grow_with_the_images(ending, tmp_path):
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    count, dim, batch = 4096, 8192, np.ones((32, 8192), "float32")  # 128 MB in all
    rows = CodeRows([""] * count, np.full(count, -1), [""] * count, [])
    path = tmp_path / f"codes{ending}"
    tracemalloc.start()
    write_codes(path, (batch for _ in range(count // 32)), rows, (dim,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48e6  # a row group of Parquet has 16 MB, twice while it is put together
    if ending != ".parquet":  # which packs ones well
        assert os.path.getsize(path) > 4 * count * dim
    path.unlink()


def test_parquet_has_groups_of_bounded_size(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    count, dim = 300, 2**16
    rows = CodeRows([""] * count, np.full(count, -1), [""] * count, [])
    batches = (np.ones((20, dim), "float32") for _ in range(count // 20))
    write_codes(tmp_path / "codes.parquet", batches, rows, (dim,))
    with parquet.ParquetFile(tmp_path / "codes.parquet") as file:
        groups = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
    assert groups == [80, 80, 80, 60]  # at least 16 MB, in whole batches


def test_endings(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match=r"must end in .npz, .npy, .parquet. Received: 'c.csv'"):
        check_code_file("c.csv")
    (tmp_path / "codes.csv").touch()
    with pytest.raises(DataError, match=r"codes.csv' exists already"):
        check_code_file(tmp_path / "codes.npy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"pip install 'kerastl\[parquet\]'"):
        check_code_file("codes.parquet")


@pytest.mark.faults
def test_a_kill_while_writing_leaves_no_file_of_that_name(tmp_path):
    program = (
        "import sys, time, numpy as np\n"
        "from kerastl.frozen.code_files import CodeRows, write_codes\n"
        "def batches():\n"
        "    yield np.ones((1, 4), 'float32')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(600)\n"
        "rows = CodeRows([''] * 9, np.full(9, -1), [''] * 9, [])\n"
        "write_codes(sys.argv[1], batches(), rows, (4,))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "codes.npz")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout.readline() == b"written\n"
    child.kill()
    child.wait()
    child.stdout.close()
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".writing-"]
    write_codes(tmp_path / "codes.npz", batches_of(codes_of(3)), rows_of(3), (5,))
