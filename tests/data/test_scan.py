"""Every crafted file is read or named, as the table of `crafted.py` says."""

import os
import pathlib

import pytest
import tensorflow as tf

from kerastl.data import scan
from kerastl.data.file_report import printable
from kerastl.data.pixels import FileSource
from tests.data.crafted import FILES, Bad, Good, encoded

GOOD = {name: outcome for name, (_, outcome) in FILES.items() if isinstance(outcome, Good)}
BAD = {name: outcome for name, (_, outcome) in FILES.items() if isinstance(outcome, Bad)}


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    paths = []
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
    return scan.scan_files(paths, sums=True)


def test_the_table_is_long_enough():
    assert len(FILES) >= 50


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_a_reason(scanned, name):
    reasons = {pathlib.Path(path).name: reason for path, reason in scanned[1]}

    assert reasons[name].startswith(BAD[name].reason)
    assert "\n" not in reasons[name]
    assert "{{" not in reasons[name]
    assert not reasons[name].endswith(": ")


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_reported_as_it_is(scanned, name):
    report = {pathlib.Path(report.path).name: report for report in scanned[0]}[name]
    expected = GOOD[name]

    assert (report.format, report.needs_pillow) == (expected.format, expected.by_pillow)
    assert report.remarks == expected.remarks
    assert (report.height, report.width) == expected.size


def test_every_good_file_decodes_with_the_operation_that_trains(scanned):
    source = FileSource(scanned[0], [report.path for report in scanned[0]])

    images = source.dataset(tf.data.Dataset.range(len(source)), (8, 8))

    assert sum(image.shape == (8, 8, 3) for image in images) == len(GOOD)


def test_every_file_is_in_one_list_in_its_order(scanned):
    good, bad = scanned

    assert [pathlib.Path(report.path).name for report in good] == list(GOOD)
    assert [pathlib.Path(path).name for path, _ in bad] == list(BAD)


def test_prints_are_those_of_the_bytes_and_the_look(scanned):
    reports = {pathlib.Path(report.path).name: report for report in scanned[0]}

    assert reports["a.jfif"].content == reports["no_ending"].content
    assert reports["a.jfif"].sha256 == reports["no_ending"].sha256
    assert reports["a.jfif"].sha256 != reports["cmyk.jpg"].sha256
    looks = [reports[name].look for name in ("a.webp", "rgba.png", "png.jpg", "a.tiff")]
    assert all(len(look) == 32 for look in looks)
    assert reports["one_pixel.png"].look == ""
    plain, _ = scan.scan_files([reports["a.jfif"].path])
    assert (plain[0].sha256, plain[0].look) == ("", reports["a.jfif"].look)


def test_max_pixels_is_an_argument(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))

    assert scan.scan_files([str(path)], max_pixels=48 * 72)[1] == []
    assert scan.scan_files([str(path)], max_pixels=48 * 72 - 1)[0] == []


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    names = ("gone.jpg", "pipe.jpg", "folder.jpg", "loop.jpg", "x" * 300 + ".jpg", "a\0b.jpg")

    good, bad = scan.scan_files([str(tmp_path / name) for name in names])

    assert good == []
    assert [reason for _, reason in bad] == [
        "No such file or directory",
        "not a regular file",
        "not a regular file",
        "Too many levels of symbolic links",
        "File name too long",
        "a broken header: embedded null byte",
    ]


def test_no_files():
    assert scan.scan_files([]) == ([], [])


def test_progress_counts_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_BLOCK", 2)
    done = []

    scan.scan_files([str(tmp_path / f"{index}.jpg") for index in range(5)], progress=done.append)

    assert done == [0, 2, 4, 5]


def test_a_name_that_is_not_utf_8_works(tmp_path):
    good, bad = (os.fsencode(tmp_path) + name for name in (b"/caf\xe9.jpg", b"/b\xe9d.jpg"))
    pathlib.Path(os.fsdecode(good)).write_bytes(encoded("JPEG"))
    pathlib.Path(os.fsdecode(bad)).write_bytes(b"bad")

    reports, bad_files = scan.scan_files([os.fsdecode(good), os.fsdecode(bad)])

    assert os.fsencode(reports[0].path) == good
    assert bad_files[0].path == f"{tmp_path}/b\\xe9d.jpg" == printable(os.fsdecode(bad))


def test_many_files_are_shared_among_children():
    assert scan._num_children(1) == 1
    assert scan._num_children(10**9) == max(1, (os.cpu_count() or 1) // 8)


def test_the_child_follows_into_another_folder(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.tiff").write_bytes(FILES["a.tiff"][0])

        monkeypatch.chdir(tmp_path / name)
        reports, bad = scan.scan_files([f"{name}.tiff"])

        assert ([report.path for report in reports], bad) == ([f"{name}.tiff"], [])
