import numpy as np
import pytest
from PIL import Image

from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import DataError, UnreadableImagesError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "inner/c.bmp", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), 200, "uint8")).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_files_and_folders_in_order(folder):
    split, skipped = load_unlabelled([str(folder / "b.png"), str(folder)])
    names = [path.removeprefix(f"{folder}/") for path in split.paths]
    assert names == ["b.png", "a.jpg", "b.png", "inner/c.bmp"]
    assert skipped == []
    assert [batch.shape for batch in split.images(8)] == [(4, 8, 8, 3)]


def test_bad_files_are_named(folder):
    (folder / "d.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableImagesError, match=r"d\.png"):
        load_unlabelled([str(folder)])
    split, skipped = load_unlabelled([str(folder), str(folder / "gone.png")], on_bad="skip")
    assert len(split) == 3
    assert [bad.path.rsplit("/", 1)[1] for bad in skipped] == ["d.png", "gone.png"]


def test_no_image_at_all(tmp_path):
    with pytest.raises(DataError, match="No image can be read"):
        load_unlabelled([str(tmp_path)])
