"""`kerastl scan` as a user meets it."""

import csv
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kerastl.cli import app as application
from kerastl.data.load import load_data
from kerastl.errors import DataError, UnreadableImagesError
from tests.data.crafted import encoded, flipped
from tests.data.layouts import build, classes, other


def scan(*arguments, status=0):
    """Run the command; return stdout and stderr."""
    result = CliRunner().invoke(application.app, ["scan", *map(str, arguments)])
    if isinstance(result.exception, DataError):
        raise result.exception
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture
def clean(tmp_path):
    root = tmp_path / "clean"
    build(root, classes("train/", a=3, b=3) | {"test/a/t.png": other(1), "test/b/t.png": other(2)},
          tmp_path)  # fmt: skip
    return root


@pytest.fixture
def dirty(clean):
    """A file that is none, one of an odd name, a leak, a conflict, and a bare copy."""
    first = (clean / "train/a/0.png").read_bytes()
    files = {
        "train/a/empty.jpg": b"",
        os.fsdecode(b"train/b/caf\xe9.png"): b"no image",
        "test/a/leak.png": first,
        "train/b/conflict.png": (clean / "train/a/1.png").read_bytes(),
        "train/b/copy.png": (clean / "train/b/0.png").read_bytes(),
        "test/b/named.jpg": other(9),
    }
    build(clean, files, clean)
    return clean


def listing_of(folder):
    """Every file with its bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_clean_set_is_accepted(clean):
    stdout, told = scan(clean, "--json")

    summary = json.loads(stdout)
    assert summary["accepted"]
    assert (summary["num_files"], summary["num_images"]) == (8, 8)
    assert summary["splits"] == {"train": 6, "test": 2}
    assert summary["classes"] == {"a": 4, "b": 4}
    assert (summary["findings"], summary["errors"], summary["skip_list"]) == ([], [], None)
    assert told == ""


def test_what_was_found_is_told_by_file_and_reason(dirty):
    stdout, _ = scan(dirty, "--json", status=2)

    summary = json.loads(stdout)
    found = {(f["path"], f["kind"]): f["reason"] for f in summary["findings"]}
    assert not summary["accepted"]
    assert found[f"{dirty}/train/a/empty.jpg", "bad"] == "an empty file"
    assert found[rf"{dirty}/train/b/caf\xe9.png", "bad"] == "not a known image format"
    assert found[f"{dirty}/test/a/leak.png", "copy"] == (
        f"a copy of {dirty}/train/a/0.png, in another part of the data"
    )
    assert found[f"{dirty}/train/b/conflict.png", "copy"] == (
        f"a copy of {dirty}/train/a/1.png, under another class"
    )
    assert found[f"{dirty}/train/b/copy.png", "copy"] == f"a copy of {dirty}/train/b/0.png"
    assert found[f"{dirty}/test/b/named.jpg", "remark"] == "PNG, although the suffix is .jpg"
    assert len(summary["warnings"]) == 3


def test_the_table_for_people(dirty):
    stdout, told = scan(dirty, status=2)

    assert "an empty file" in stdout
    assert "12 of 14 files are readable images (a 5, b 7); 2 are not." in told
    assert "Warning: 1 pictures are in more than one part of the data" in told


def test_a_long_table_is_cut_and_says_so(dirty, monkeypatch):
    monkeypatch.setattr("kerastl.cli.scan._MOST_ROWS", 2)

    assert "... and 7 more. --csv FILE writes all of them." in scan(dirty, status=2)[1]


def test_csv_holds_what_json_holds(dirty, tmp_path):
    stdout, _ = scan(dirty, "--json", "--csv", tmp_path / "found.csv", status=2)

    with open(tmp_path / "found.csv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == json.loads(stdout)["findings"]


def test_fix_writes_a_skip_list_and_nothing_else(dirty):
    before = listing_of(dirty)

    stdout, told = scan(dirty, "--fix", "--json")

    after = listing_of(dirty)
    written = dirty / "kerastl-skip.txt"
    assert json.loads(stdout)["skip_list"] == str(written)
    assert {path: data for path, data in after.items() if path != written} == before
    assert "lists 6 files that training skips. No file was moved." in told
    lines = written.read_bytes().splitlines()[1:]
    assert [line.split(b"\t")[0] for line in lines] == [
        b"train/a/0.png",
        b"train/a/1.png",
        b"train/a/empty.jpg",
        b"train/b/caf\xe9.png",
        b"train/b/conflict.png",
        b"train/b/copy.png",
    ]


def test_loading_honours_the_skip_list(dirty):
    with pytest.raises(UnreadableImagesError):
        load_data(dirty)
    scan(dirty, "--fix")

    data = load_data(dirty, validation_fraction=0)

    assert (len(data.train), len(data.test)) == (4, 4)
    assert len(data.skipped) == 6
    assert (f"{dirty}/train/a/empty.jpg", "in kerastl-skip.txt: an empty file") in data.skipped
    assert not any("pictures" in warning for warning in data.warnings)
    assert json.loads(scan(dirty, "--json")[0])["accepted"]


def test_fixing_again_keeps_what_stood_in_the_list(dirty):
    scan(dirty, "--fix")
    first = (dirty / "kerastl-skip.txt").read_bytes()
    (dirty / "train/a/late.png").write_bytes(b"")

    scan(dirty, "--fix")

    assert (dirty / "kerastl-skip.txt").read_bytes() == first.replace(
        b"train/b/caf", b"train/a/late.png\tan empty file\ntrain/b/caf"
    )


def test_nothing_to_fix(clean):
    assert "No file has to be skipped" in scan(clean, "--fix")[1]
    assert not (clean / "kerastl-skip.txt").exists()


def test_what_no_list_can_mend_is_refused_even_so(dirty):
    (dirty / "train/c").mkdir()

    stdout, _ = scan(dirty, "--fix", "--json", status=2)

    assert "A class folder must contain images" in json.loads(stdout)["errors"][0]


def test_a_manifest_sees_flipped_bytes_that_decode(clean, tmp_path):
    photo = clean / "train/a/photo.jpg"
    photo.write_bytes(encoded("JPEG"))
    sums = tmp_path / "sums.txt"
    scan(clean, "--manifest", sums)
    assert json.loads(scan(clean, "--json", "--manifest", sums)[0])["accepted"]

    photo.write_bytes(flipped(photo.read_bytes(), b"\xff\xda", 60))
    stdout, _ = scan(clean, "--json", "--manifest", sums, status=2)

    assert json.loads(stdout)["findings"][0] == {
        "path": str(photo),
        "kind": "changed",
        "reason": "its SHA-256 differs from the manifest: the file was changed or damaged",
    }
    scan(clean, "--fix", "--manifest", sums)
    assert b"train/a/photo.jpg\tits SHA-256 differs" in (clean / "kerastl-skip.txt").read_bytes()
    assert json.loads(scan(clean, "--json", "--manifest", sums)[0])["accepted"]


def test_a_table_is_scanned_and_fixed_beside_itself(clean):
    (clean / "bad.png").write_bytes(b"")
    rows = ["image,label", "train/a/0.png,x", "train/a/1.png,x", "train/b/0.png,y", "bad.png,y"]
    (clean / "table.csv").write_text("\n".join(rows))

    scan(clean / "table.csv", "--fix")

    assert (clean / "kerastl-skip.txt").read_text().endswith("\nbad.png\tan empty file\n")
    data = load_data(clean / "table.csv", test_fraction=0, validation_fraction=0)
    assert (data.num_images, len(data.skipped)) == (3, 1)


def test_max_pixels(clean):
    stdout, _ = scan(clean, "--json", "--max-pixels", 1000, status=2)

    assert (
        json.loads(stdout)["findings"][0]["reason"]
        == ("33 x 34: more pixels than max_pixels=1,000")
        or "34 x 33: more pixels" in stdout
    )


@pytest.mark.parametrize("name", ["nothing", "a.npz", "tfds:beans"])
def test_what_has_no_files_is_refused(tmp_path, name):
    (tmp_path / "a.npz").write_bytes(b"")

    with pytest.raises(DataError, match="A scan reads the files of a folder or of a .csv table"):
        scan(tmp_path / name)


def test_the_scanning_process_itself_does_without_tensorflow():
    code = (
        "import sys, kerastl.cli.scan, kerastl.data.inspection; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
