"""Every folder layout is loaded or refused, as the table of `layouts.py` says."""

import os

import pytest

from kerastl.data.file_report import printable
from kerastl.data.inspection import inspect_images
from kerastl.data.load import load_data
from kerastl.errors import DataError, UnreadableImagesError
from tests.data.layouts import LAYOUTS, Loads, Refused, build, other

LOADED = {name: row for name, row in LAYOUTS.items() if isinstance(row[1], Loads)}
REFUSED = {name: row for name, row in LAYOUTS.items() if isinstance(row[1], Refused)}


@pytest.fixture
def root(request, tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "0.png").write_bytes(other(50))
    build(root, LAYOUTS[request.param][0], outside)
    return root


def load(root, on_bad="error"):
    return load_data(root, test_fraction=0, validation_fraction=0, on_bad=on_bad)


def test_the_table_is_long_enough():
    assert len(LAYOUTS) >= 35


@pytest.mark.parametrize(("root", "expected"), [(n, r[1]) for n, r in LOADED.items()],
                         indirect=["root"], ids=LOADED)  # fmt: skip
def test_a_layout_is_loaded(root, expected):
    bad = {f"{root}/{name}": text.format(root=root) for name, text in expected.bad.items()}
    skipped = {f"{root}/{name}": text for name, text in expected.skipped.items()}
    if bad:
        with pytest.raises(UnreadableImagesError) as raised:
            load(root)
        assert dict(raised.value.bad_files) == bad

    data = load(root, "skip" if bad else "error")

    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    assert tuple(data.class_names) == expected.classes
    assert {part: len(split) for part, split in parts.items() if split} == expected.parts
    assert dict(data.skipped) == bad | skipped
    assert sorted(os.path.relpath(path, root) for path in data.ignored) == sorted(expected.ignored)
    assert len(data.warnings) == len(expected.warnings)
    for warning, start in zip(data.warnings, expected.warnings, strict=True):
        assert warning.startswith(start.format(root=root))
    assert inspect_images(str(root)).is_accepted == (not bad)


@pytest.mark.parametrize(("root", "expected"), [(n, r[1]) for n, r in REFUSED.items()],
                         indirect=["root"], ids=REFUSED)  # fmt: skip
def test_a_layout_is_refused(root, expected):
    for on_bad in ("error", "skip"):
        with pytest.raises(DataError) as raised:
            load(root, on_bad)
        assert expected.text in str(raised.value)
        assert str(raised.value) == printable(str(raised.value))
    assert expected.text in why_a_scan_refuses(root)


def why_a_scan_refuses(root):
    try:
        found = inspect_images(str(root))
    except DataError as error:
        return str(error)
    assert not found.is_accepted
    return "\n".join(found.errors)
