"""Files that promise, or unpack to, more than the memory holds are refused before they are read."""

import os
import zipfile

import numpy as np
import pytest
from numpy.lib.npyio import NpzFile
from PIL import Image

from kerastl.data import arrays, scan
from kerastl.data.load import load_data
from kerastl.errors import DataError


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((40, 99, 99), np.uint8), y=np.arange(40) % 2)
    monkeypatch.setattr(NpzFile, "__getitem__", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(arrays, "_LARGE", 100_000)

    with pytest.raises(DataError, match=r"bomb.npz' unpacks to 39\d,\d{3} bytes, \d{3} times its"):
        load_data(path)


def test_an_archive_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 99, 99), np.uint8), y=np.arange(9))
    monkeypatch.setattr(os, "sysconf", lambda name: 100 if name == "SC_PHYS_PAGES" else 512)

    with pytest.raises(DataError, match=r"with 51,200 bytes of memory available. Pass image files"):
        load_data(tmp_path / "a.npz")


def test_an_array_that_promises_more_than_there_is_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 5, 6, 3), np.uint8))
    data = (tmp_path / "x.npy").read_bytes()
    data = data.replace(b"(4, 5, 6, 3)", b"(4,9**9,6,3)").replace(b"9**9", b"9999")
    np.save(tmp_path / "y.npy", np.arange(4) % 2)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
        archive.write(tmp_path / "y.npy", "y.npy")

    with pytest.raises(DataError, match=r"x.npy promises an array of \(4, 9999, 6, 3\)"):
        load_data(tmp_path / "a.npz")


def test_a_file_far_larger_than_its_pixels_is_not_read(tmp_path):
    Image.new("RGB", (33, 34)).save(tmp_path / "a.png")
    os.truncate(tmp_path / "a.png", 6 * 10**9)  # sparse: it takes no room on the disk

    reports, bad = scan.scan_files([str(tmp_path / "a.png")])

    assert reports == []
    assert bad[0].reason == "6,000,000,000 bytes for 33 x 34 pixels"
