"""The skip list and the manifest, written and read again, whatever the names of files are."""

import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerastl._atomic import atomic_write_text
from kerastl.data import manifest, skip_list
from kerastl.data.classes import normal
from kerastl.data.escapes import escape, unescape
from kerastl.data.file_report import printable
from kerastl.data.listing import Listing
from kerastl.errors import BadFile, DataError, ExportError

# Any name that a file can have: bytes but for NUL, relative, and normal.
NAMES = (
    st.binary(min_size=1, max_size=40)
    .filter(lambda name: b"\0" not in name)
    .map(lambda name: os.path.normpath(os.fsdecode(name).lstrip("/") or "a"))
)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
ON_ONE_FOLDER = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(st.text())
def test_what_is_escaped_is_one_field_of_a_line(text):
    assert not {"\n", "\r", "\t"} & set(escape(text))
    assert unescape(escape(text)) == text


@pytest.mark.parametrize("text", ["\\", "a\\", "\\x41", "\\\\\\"])
def test_a_backslash_that_stands_for_nothing_is_refused(text):
    with pytest.raises(ValueError, match="is not a known escape"):
        unescape(text)


@ON_ONE_FOLDER
@given(st.dictionaries(NAMES, st.text(st.characters(codec="utf-8")).map(str.strip)))
def test_a_skip_list_is_read_as_it_was_written(tmp_path, reasons):
    skip_list.write_skip_list(str(tmp_path), reasons)

    expected = {normal(name): reason for name, reason in sorted(reasons.items())}
    assert skip_list.read_skip_list(str(tmp_path)) == expected


@ON_ONE_FOLDER
@given(st.dictionaries(NAMES, DIGESTS))
def test_a_manifest_is_read_as_it_was_written(tmp_path, sums):
    path = str(tmp_path / "sums")
    manifest.write_manifest(path, sums)

    assert manifest.read_manifest(path) == sums


def test_a_skip_list_for_people(tmp_path):
    (tmp_path / skip_list.NAME).write_bytes(
        b"\xef\xbb\xbf# a note\r\n\r\na/1.png\r\n./b//2.png\tblurred\n\\#3.png\tx\ncaf\xe9.png"
    )

    assert skip_list.read_skip_list(str(tmp_path)) == {
        "a/1.png": "",
        "b/2.png": "blurred",
        "#3.png": "x",
        os.fsdecode(b"caf\xe9.png"): "",
    }


def test_names_are_those_of_another_unicode_form(tmp_path):
    composed, apart = "caf\u00e9.png", "cafe\u0301.png"  # as Linux and as macOS write it
    for in_list, on_disk in ((composed, apart), (apart, composed)):
        skip_list.write_skip_list(str(tmp_path), {in_list: "blurred"})
        listing = Listing(str(tmp_path))
        assert listing.skips(str(tmp_path / on_disk))
        listing.warn_of_unused_skips()
        assert not listing.warnings
        assert manifest.compare({in_list: "1", "b": "2"}, {on_disk: "1", "b": "2"}) == []
        ((name, reason),) = manifest.compare({in_list: "1"}, {on_disk: "2"})
        assert (name, manifest.is_damage(reason)) == (printable(in_list), True)
    both = {composed: "1", apart: "2"}
    assert manifest.compare(both, both) == []
    assert len(manifest.compare({composed: "1"}, both)) == 1


def test_no_skip_list(tmp_path):
    assert skip_list.read_skip_list(str(tmp_path)) == {}


def test_skip_lists_that_cannot_be_read(tmp_path):
    (tmp_path / skip_list.NAME).write_text("a/1.png\n\na\\9.png\n")
    with pytest.raises(DataError, match=r"Line 3 of '.*kerastl-skip.txt' is wrong: '\\\\9'"):
        skip_list.read_skip_list(str(tmp_path))
    (tmp_path / skip_list.NAME).unlink()
    (tmp_path / skip_list.NAME).mkdir()
    with pytest.raises(DataError, match="Cannot read the skip list .*: Is a directory"):
        skip_list.read_skip_list(str(tmp_path))


def test_manifests_that_cannot_be_read(tmp_path):
    path = tmp_path / "sums"
    for text in ("hello\n", f"{'0' * 63}  a\n", f"{'0' * 64} a\n", f"\\{'0' * 64}  a\\x\n"):
        path.write_text(text)
        with pytest.raises(DataError, match="Line 1 of the manifest .* is wrong"):
            manifest.read_manifest(str(path))
    with pytest.raises(DataError, match="No such file or directory"):
        manifest.read_manifest(str(tmp_path / "nothing"))


def test_what_differs_from_a_manifest():
    expected, found = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"}

    differences = manifest.compare(expected, found)

    assert differences == [
        BadFile("b", "its SHA-256 differs from the manifest: the file was changed or damaged"),
        BadFile("c", "in the manifest, but not found"),
        BadFile("d", "not in the manifest"),
    ]
    assert [manifest.is_damage(reason) for _, reason in differences] == [True, False, False]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_reads_a_manifest_and_we_read_its(tmp_path):
    names = ["a", "with space", "tab\there", "back\\slash", "new\nline", os.fsdecode(b"caf\xe9")]
    for name in names:
        (tmp_path / name).write_text(name, errors="surrogateescape")
    theirs = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    (tmp_path / "theirs").write_bytes(theirs)

    sums = manifest.read_manifest(str(tmp_path / "theirs"))
    manifest.write_manifest(str(tmp_path / "ours"), sums)

    assert sorted(sums) == sorted(names)
    check = subprocess.run(["sha256sum", "--check", "--strict", "ours"], cwd=tmp_path, check=False,
                           capture_output=True)  # fmt: skip
    assert check.returncode == 0, check.stderr


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        atomic_write_text(str(path), "new")

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@given(NAMES)
def test_what_is_printed_can_be_encoded(name):
    assert printable(name).encode()
