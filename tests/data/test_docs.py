"""Each example of `docs/data.md` runs, on small files of the form that it shows."""

import io
import json
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

import kerastl
from tests import command
from tests.data.prepared import write_tfds

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
X = np.random.default_rng(0).integers(0, 256, (40, 33, 34, 3), np.uint8)
Y = np.arange(40) % 2
NAMES = ["rose", "tulip"]


def save(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(X[number]).save(path)


def encoded(number):
    file = io.BytesIO()
    Image.fromarray(X[number]).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_parquet(path, numbers):
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    columns = {"image": [encoded(n) for n in numbers], "label": [int(Y[n]) for n in numbers]}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with all that the page names."""
    home = tmp_path_factory.mktemp("home")
    for n in range(40):
        save(home / "flowers" / NAMES[n % 2] / f"{n}.png", n)
        save(home / "tumors" / ("Testing" if n < 8 else "Training") / "ab"[n % 2] / f"{n}.png", n)
        save(home / "images" / f"{n}.jpg", n)
        deep = home / "scans" / "ab"[n % 2] / f"{n}.png"
        deep.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[n, ..., 0].astype("uint16") * 16).save(deep)
        deep = home / "fields" / "ab"[n % 2] / f"{n}.tif"
        deep.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(deep, np.repeat(X[n].astype("uint16") * 16, 2, -1), planarconfig="contig")
    labels = [["sea", "sky"], ["sky"], ["sea"], []]
    tables = {
        "labels": ("path,label", lambda n: f"images/{n}.jpg,{Y[n]}"),
        "dogs": ("id,breed,owner", lambda n: f"{n},{NAMES[n % 2]},{n // 4}"),
        "scenes": ("path,labels", lambda n: f"images/{n}.jpg,{'|'.join(labels[n % 4])}"),
        "blanks": ("path,labels", lambda n: f"images/{n}.jpg,{' '.join(labels[n % 4])}"),
        "rows": ("path,label", lambda n: f"images/{n // 2}.jpg,{('sea', 'sky')[n % 2]}"),
        "indicators": ("path,sea,sky", lambda n: f"images/{n}.jpg,{Y[n]},{n % 3 // 2}"),
        "ages": ("path,age", lambda n: f"images/{n}.jpg,{n / 3}"),
    }
    for name, (header, row) in tables.items():
        (home / f"{name}.csv").write_text("\n".join([header, *map(row, range(40))]))
    np.savez(home / "arrays.npz", x_train=X, y_train=Y, x_test=X[:9], y_test=Y[:9])
    write_parquet(home / "flowers.parquet", range(40))
    write_parquet(home / "shards" / "train-00000-of-00002.parquet", range(20))
    write_parquet(home / "shards" / "train-00001-of-00002.parquet", range(20, 30))
    write_parquet(home / "shards" / "test-00000-of-00001.parquet", range(30, 40))
    with tarfile.open(home / "shards.tar", "w") as tar:
        for n in range(40):
            for name, data in (
                (f"{n}.png", encoded(n)["bytes"]),
                (f"{n}.cls", NAMES[n % 2].encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for n in range(40):
        part = home / "yolo" / ("valid" if n < 8 else "train")
        save(part / "images" / f"{n}.png", n)
        (part / "labels").mkdir(exist_ok=True)
        (part / "labels" / f"{n}.txt").write_text(f"{n % 2} 0.5 0.5 0.1 0.1\n")
    (home / "yolo" / "data.yaml").write_text("names: [rose, tulip]\n")
    coco = {
        "images": [{"id": 7 * n, "file_name": f"{n}.jpg"} for n in range(40)],
        "categories": [{"id": 3 + n, "name": name} for n, name in enumerate(NAMES)],
        "annotations": [{"image_id": 7 * n, "category_id": 3 + n % 2} for n in [*range(40), 5]],
    }
    studio = [
        {
            "data": {"image": f"/data/upload/1/{n}.jpg"},
            "annotations": [
                {"result": [{"type": "choices", "value": {"choices": [NAMES[n % 2]]}}]}
            ],
        }
        for n in range(40)
    ]
    write_tfds(home / "tfds", X)
    (home / "coco.json").write_text(json.dumps(coco))
    (home / "studio.json").write_text(json.dumps(studio))
    return home


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[0][:50] for block in BLOCKS])
def test_an_example_runs(home, block, monkeypatch):
    monkeypatch.chdir(home)
    loaded = []

    def load_data(*source, **how):
        loaded.append(kerastl.load_data(*source, **how))
        return loaded[-1]

    known = {"kerastl": SimpleNamespace(load_data=load_data), "keras": keras, "tf": tf, "np": np}
    known |= {"x": X, "y": Y, "x_test": X[:9], "y_test": Y[:9], "dataset": _Dataset(range(40))}
    for name, word in (("pandas", "pandas"), ("tensorflow_datasets", "tfds")):
        if f"{word}." in block:
            known[word] = pytest.importorskip(name)
    exec(block.replace("s3://bucket", f"file://{home}"), known)

    assert len(loaded) == block.count("load_data")
    for data in loaded:
        assert data.num_images >= 20
        assert data.validation
        assert data.test
        assert not any("black" in warning for warning in data.warnings)


def test_the_command_runs(home, monkeypatch):
    monkeypatch.chdir(home)
    (line,) = re.findall(r"```sh\nkerastl (scan .*?)\n```", PAGE)

    assert "40 of 40 files are readable images" in command.kerastl(*line.split()).stderr


def test_images_in_parquet_are_those_that_were_written(home):
    data = kerastl.load_data(home / "shards", validation_fraction=0)
    again = kerastl.load_data(home / "shards", validation_fraction=0)

    assert data.class_names == NAMES
    shown = next(iter(data.test.images((33, 34)))).numpy()
    np.testing.assert_array_equal(shown, X[30:])
    assert data.test.labels.tolist() == Y[30:].tolist()
    assert data.fingerprint() == again.fingerprint()


def test_exports_that_cannot_be_meant(tmp_path):
    from kerastl.errors import DataError

    (tmp_path / "a.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"must be a COCO or Label Studio export. Received: "):
        kerastl.load_data(tmp_path / "a.json")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="as Parquet"):
        kerastl.load_data(tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet", range(2))
    table = pq.read_table(tmp_path / "b.parquet").to_pydict()
    table["image"][1] = {"bytes": None, "path": "x.png"}
    pq.write_table(pa.table(table), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="Received: no bytes in row 1 of"):
        kerastl.load_data(tmp_path / "c.parquet")


class _Dataset:
    """What is used of a `datasets.Dataset`."""

    features = ("image", "label")

    def __init__(self, numbers):
        self._numbers = numbers

    def to_parquet(self, path):
        write_parquet(Path(path), self._numbers)


def test_data_sets_of_hugging_face():
    parts = {"train": _Dataset(range(30)), "test": _Dataset(range(30, 40))}

    data = kerastl.load_data(parts, validation_fraction=0)

    assert (data.class_names, data.source) == (NAMES, "datasets.Dataset")
    assert data.test.labels.tolist() == Y[30:].tolist()
    assert kerastl.load_data(_Dataset(range(40))).num_images == 40


def test_an_image_that_parquet_has_as_a_path_stays_where_it_is(home, tmp_path):
    paths = [str(home / "images" / f"{n}.jpg") for n in range(20)]
    images = [{"bytes": None, "path": path} for path in paths]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 10}), tmp_path / "a.parquet")

    data = kerastl.load_data(tmp_path / "a.parquet", test_fraction=0, validation_fraction=0)

    assert data.train.paths == paths
