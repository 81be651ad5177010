"""Shards of WebDataset are tables: what is beside an image says its class."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

import kerastl
from kerastl.errors import DataError
from tests import command

X = np.random.default_rng(0).integers(0, 256, (40, 33, 34, 3), np.uint8)


def png(number):
    file = io.BytesIO()
    Image.fromarray(X[number]).save(file, "PNG")
    return file.getvalue()


def write(path, members):
    """Write a tar of names and bytes; of other values a link to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
    return path


def samples(numbers, told, ending="cls", prefix=""):
    for n in numbers:
        yield f"{prefix}{n:04}.png", png(n)
        yield f"{prefix}{n:04}.{ending}", told(n).encode()


FORMS = {
    "numbers": (".tar", "cls", lambda n: f"{n % 2}\n", {}, ["0", "1"]),
    "names, packed": (".tar.gz", "cls", lambda n: "cat dog".split()[n % 2], {}, ["cat", "dog"]),
    "text": (".tgz", "txt", lambda n: "cat dog".split()[n % 2], {}, ["cat", "dog"]),
    "json": (".tar", "json", lambda n: json.dumps({"label": n % 2, "id": n}), {}, ["0", "1"]),
    "json of a number": (".tar", "json", lambda n: json.dumps(n % 2), {}, ["0", "1"]),
    "json of another name": (
        ".tar", "json", lambda n: json.dumps({"breed": "ab"[n % 2], "owner": n // 4}),
        {"label_column": "breed", "group_column": "owner"}, ["a", "b"],
    ),
    "several labels": (
        ".tar", "json", lambda n: json.dumps({"labels": ["sea", "sky"][: 1 + n % 2]}),
        {"task": "multi_label"}, ["sea", "sky"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms(tmp_path, name):
    suffix, ending, told, how, classes = FORMS[name]
    path = write(tmp_path / f"a{suffix}", samples(range(40), told, ending, "deep/folder/"))

    data = kerastl.load_data(path, **how)

    assert data.class_names == classes
    assert data.num_images == 40
    shown = {}
    for part in (data.train, data.validation, data.test):
        images = [np.asarray(Image.open(path)).tobytes() for path in part.paths]
        labels = [np.atleast_1d(label)[-1] for label in part.labels]
        shown |= zip(images, labels, strict=True)
    assert shown == {X[n].tobytes(): n % 2 for n in range(40)}


def test_shards_in_a_folder_are_parts(tmp_path):
    for shard, numbers in (
        ("train-000000.tar", range(12)), ("train-000001.tar", range(12, 20)),
        ("val-000000.tar", range(20, 30)), ("test.tar", range(30, 40)),
    ):  # fmt: skip
        write(tmp_path / shard, samples(numbers, lambda n: f"{n % 2}"))

    data = kerastl.load_data(tmp_path)

    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 10, 10]
    assert data.train.fingerprint() == kerastl.load_data(tmp_path).train.fingerprint()
    assert "40 of 40 files are readable" in command.kerastl("scan", tmp_path).stderr


def test_no_name_of_a_member_leads_out(tmp_path):
    hostile = [
        ("../../outside.png", png(0)), ("../../outside.cls", b"0"),
        ("/tmp/kerastl-outside.png", png(1)), ("/tmp/kerastl-outside.cls", b"1"),
        ("link.png", "/etc/passwd"), ("link.cls", "/etc/passwd"),
        ("./.hidden.png", b"no"), ("new\nline\x1b.png", png(2)), ("new\nline\x1b.cls", b"0"),
    ]  # fmt: skip
    path = write(tmp_path / "in" / "a.tar", hostile)

    data = kerastl.load_data(path, test_fraction=0, validation_fraction=0)

    assert data.num_images == 3
    assert [one.name for one in tmp_path.iterdir()] == ["in"]
    assert all("outside" not in file and "kerastl-" in file for file in data.train.paths)


@pytest.mark.parametrize("sizes", [[10**7], [2000, 2000]])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5000}))
    members = [(f"{n}.{kind}", bytes(size if kind == "png" else 1)) for n, size in enumerate(sizes)
               for kind in ("png", "cls")]  # fmt: skip
    path = write(tmp_path / "a.tar.gz", members)

    with pytest.raises(DataError, match="more than half of the disk"):
        kerastl.load_data(path)


REFUSED = {
    "no labels": (samples(range(4), str, "seen"), "must contain .cls or .json files next to"),
    "no images": ([("a.cls", b"0")], "There is no image in"),
    "an image without": ([*samples(range(4), str), ("z.png", png(9))], "an image and a label"),
    "a label of a megabyte": ([("a.png", png(0)), ("a.cls", bytes(2**20 + 1))], "1,048,577 bytes"),
    "no JSON": ([("a.png", png(0)), ("a.json", b"{")], "as a WebDataset tar file"),
    "deep JSON": ([("a.png", png(0)), ("a.json", b"[" * 10**5)], "as a WebDataset tar file"),
    "no text": ([("a.png", png(0)), ("a.cls", b"\xff\xfe")], "as a WebDataset tar file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    members, message = REFUSED[name]
    path = write(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=message):
        kerastl.load_data(path)


def test_what_is_cut(tmp_path):
    whole = write(tmp_path / "a.tar", samples(range(20), lambda n: f"{n % 2}")).read_bytes()
    for name, data in {
        "cut.tar": whole[:5000],
        "cut.tar.gz": gzip.compress(whole)[:5000],
        "no.tar": b"PK",
        "empty.tar": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="as a WebDataset tar file|no image"):
            kerastl.load_data(tmp_path / name)
