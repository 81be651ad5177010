"""Data of other file systems are copied once, and again when they change."""

import numpy as np
import pytest
from PIL import Image

from kerastl.data import remote
from kerastl.data.inspection import inspect_images
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """A file system in memory with class folders and a table, and a cache of its own."""
    monkeypatch.setenv("KERASTL_CACHE_DIR", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    rows = ["path,label"]
    for number in range(12):
        name = f"{'ab'[number % 2]}/{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (33, 34, 3), np.uint8)
        with system.open(f"/bucket/set/{name}", "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
        rows.append(f"{name},{'xy'[number % 2]}")
    system.pipe("/bucket/set/labels.csv", "\n".join(rows).encode())
    yield system
    system.rm("/bucket", recursive=True)


def test_a_folder_and_a_table(memory, monkeypatch):
    folder, table = load_data("memory://bucket/set"), load_data("memory://bucket/set/labels.csv")

    assert (folder.class_names, folder.num_images) == (["a", "b"], 12)
    assert (table.class_names, table.num_images) == (["x", "y"], 12)
    assert folder.source == "memory://bucket/set"
    assert inspect_images("memory://bucket/set").is_accepted
    monkeypatch.setattr(remote, "_download", lambda *_: pytest.fail("it was copied again"))
    assert load_data("memory://bucket/set").fingerprint() == folder.fingerprint()


def test_what_has_changed_is_copied_again(memory):
    load_data("memory://bucket/set")
    memory.rm("/bucket/set/a/0.png")

    assert load_data("memory://bucket/set").num_images == 11


def test_one_file(memory):
    data = {"x": np.random.default_rng(0).integers(0, 255, (20, 5, 6, 3), np.uint8)}
    with memory.open("/bucket/arrays.npz", "wb") as file:
        np.savez(file, y=np.arange(20) % 2, **data)

    assert load_data("memory://bucket/arrays.npz").num_images == 20


def test_what_cannot_be_copied(memory, monkeypatch):
    with pytest.raises(DataError, match="There is no file at 'memory://bucket/none'"):
        load_data("memory://bucket/none")
    with pytest.raises(DataError, match=r"Cannot read .* install the package of the store"):
        load_data("nosuchstore://bucket/set")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 100}))
    with pytest.raises(DataError, match=r"more than half of the 100 that are free in .*CACHE_DIR"):
        load_data("memory://bucket/set")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ArgumentError, match=r"pip install 'kerastl\[cloud\]'"):
        load_data("memory://bucket/set")


def test_a_name_that_leads_out_is_refused():
    assert remote._relative("/b/set/a/0.png", "/b/set", "") == "a/0.png"
    with pytest.raises(DataError, match="which is outside"):
        remote._relative("/b/other/0.png", "/b/set", "memory://b/set")
