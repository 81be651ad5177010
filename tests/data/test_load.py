import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError, UnreadableImagesError

RNG = np.random.default_rng(0)
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


def write_image(path, number=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((36, 37, 3), number, np.uint8) if number else RNG.integers(0, 256, (36, 37, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_classes(folder, counts):
    for name, count in counts.items():
        for index in range(count):
            write_image(folder / name / f"{index:03}.png")
    return folder


@pytest.fixture
def flowers(tmp_path):
    return write_classes(tmp_path / "flowers", {"rose": 20, "tulip": 40})


def names(split):
    return {os.path.relpath(path, os.path.commonpath(split.paths)) for path in split.paths}


def test_a_folder_without_a_split_is_split_in_three(flowers):
    data = load_data(flowers)

    assert data.class_names == ["rose", "tulip"]
    assert (data.num_classes, data.num_images) == (2, 60)
    counts = [np.bincount(s.labels).tolist() for s in (data.train, data.validation, data.test)]
    assert counts == [[14, 27], [2, 5], [4, 8]]
    parts = [set(s.paths) for s in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 60
    for path, label in zip(data.train.paths, data.train.labels, strict=True):
        assert pathlib.Path(path).parent.name == data.class_names[label]
    assert data.source == str(flowers)
    assert (data.skipped, data.ignored, data.warnings) == ([], [], [])


def test_the_seed_decides_the_split(flowers):
    first, again, other = (load_data(str(flowers), seed=seed) for seed in (1, 1, 2))

    assert first.test.paths == again.test.paths
    assert first.test.paths != other.test.paths
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_the_fingerprint_follows_content_not_place(flowers, tmp_path):
    before = load_data(flowers).fingerprint()
    moved = shutil.move(flowers, tmp_path / "moved")
    after = load_data(moved)
    write_image(pathlib.Path(after.test.paths[0]))

    assert before == after.fingerprint() != load_data(moved).fingerprint()


@pytest.mark.parametrize(
    ("parts", "validation", "test"),
    [
        (["train"], 3, 4),
        (["train", "val"], 3, 2),
        (["train", "test"], 3, 2),
        (["train", "validation", "test"], 2, 2),
        (["Train", "VALID", "Test"], 2, 2),
    ],
)
def test_the_parts_of_a_folder(tmp_path, parts, validation, test):
    for part in parts:
        count = 10 if part.lower() == "train" else 1
        write_classes(tmp_path / part, {"a": count, "b": count})

    data = load_data(tmp_path)

    assert len(data.validation) == (validation if len(parts) > 1 else 2)
    assert len(data.test) == test
    if len(parts) == 2:
        assert all(f"/{parts[1]}/" in path for path in data.test.paths)


def test_train_can_be_a_class(tmp_path):
    write_classes(tmp_path, {"train": 4, "plane": 4})

    assert load_data(tmp_path).class_names == ["plane", "train"]


def test_fractions_of_zero_leave_parts_out(flowers):
    data = load_data(flowers, validation_fraction=0, test_fraction=0)

    assert (data.validation, data.test) == (None, None)
    assert len(data.train) == 60


def test_another_source_is_the_test_set(flowers, tmp_path):
    other = write_classes(tmp_path / "other", {"rose": 1, "tulip": 2})

    data = load_data(flowers, test=other)

    assert (len(data.train), len(data.validation), len(data.test)) == (51, 9, 3)
    write_image(other / "daisy" / "a.png")
    with pytest.raises(DataError, match=r"be rose, tulip. Received in addition:"):
        load_data(flowers, test=other)


def test_a_test_set_without_a_class_is_warned_of(flowers, tmp_path):
    data = load_data(flowers, test=write_classes(tmp_path / "other", {"rose": 1}))

    assert len(data.test) == 1
    assert "no image of tulip in test, so its accuracy is not known" in data.warnings


def test_a_test_part_that_gives_way_is_warned_of(flowers, tmp_path):
    import shutil

    shutil.copytree(flowers, tmp_path / "split" / "train")
    shutil.copytree(flowers, tmp_path / "split" / "test")
    data = load_data(tmp_path / "split", test=flowers)

    assert any("are replaced by `test`" in warning for warning in data.warnings)


def test_test_fraction_with_a_test_part_is_refused(flowers):
    with pytest.raises(ArgumentError, match="test_fraction=0.2 with 60 test images"):
        load_data(flowers, test=flowers, test_fraction=0.2)


def test_bad_files_are_all_named(flowers):
    (flowers / "rose" / "bad.jpg").write_bytes(b"no image")
    (flowers / "tulip" / "empty.png").write_bytes(b"")

    with pytest.raises(UnreadableImagesError) as raised:
        load_data(flowers)
    data = load_data(flowers, on_bad="skip")

    assert [pathlib.Path(path).name for path, _ in raised.value.bad_files] == [
        "bad.jpg",
        "empty.png",
    ]
    assert "2 of 62 files are not readable images" in str(raised.value)
    assert f"{flowers}/rose/bad.jpg: not a known image format" in str(raised.value)
    assert data.skipped == raised.value.bad_files
    assert data.num_images == 60


@pytest.mark.parametrize(
    "junk", ["._a.jpg", "__MACOSX/rose/._a.jpg", ".git/config", ".DS_Store", "rose/Thumbs.db"]
)
def test_what_systems_leave_about_is_no_data(flowers, junk):
    path = flowers / junk
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"junk")

    data = load_data(flowers)

    assert (data.class_names, data.num_images, data.ignored) == (["rose", "tulip"], 60, [])


def test_side_files_are_recorded(flowers):
    for name in ("notes.txt", "rose/labels.json", "tulip/LICENSE"):
        (flowers / name).write_text("text")
    write_image(flowers / "loose.png")

    data = load_data(flowers)

    found = [os.path.relpath(path, flowers) for path in data.ignored]
    assert sorted(found) == ["loose.png", "notes.txt", "rose/labels.json", "tulip/LICENSE"]
    assert data.warnings == [
        f"1 files or folders do not belong to a class and are ignored (such as {flowers}/loose.png)"
    ]


@pytest.mark.parametrize("name", ["a.webp", "a.tiff", "a.jfif", "a"])
def test_images_are_known_by_content(flowers, name):
    kind = {".webp": "WEBP", ".tiff": "TIFF"}.get(pathlib.Path(name).suffix, "JPEG")
    Image.new("RGB", (36, 37)).save(flowers / "rose" / name, kind)

    data = load_data(flowers, test_fraction=0, validation_fraction=0)

    assert str(flowers / "rose" / name) in data.train.paths
    assert next(iter(data.train.images(8))).shape == (32, 8, 8, 3)


def test_nested_folders_are_read(flowers):
    write_image(flowers / "rose" / "red" / "deep" / "a.png")

    assert load_data(flowers).num_images == 61


def test_links(flowers, tmp_path):
    write_image(tmp_path / "outside" / "a.png")
    (flowers / "rose" / "dead.png").symlink_to(tmp_path / "nothing.png")
    (flowers / "rose" / "out.png").symlink_to(tmp_path / "outside" / "a.png")
    (flowers / "rose" / "loop").symlink_to(flowers)
    (flowers / "rose" / "near.png").symlink_to(flowers / "rose" / "000.png")

    data = load_data(flowers, on_bad="skip")

    assert [(pathlib.Path(path).name, reason) for path, reason in data.skipped] == [
        ("dead.png", "a dead link"),
        ("loop", "a link to a folder"),
        ("out.png", f"a link to a place outside {flowers}"),
    ]
    assert data.num_images == 61


def test_a_link_to_the_root_is_followed(flowers, tmp_path):
    (tmp_path / "link").symlink_to(flowers)

    assert load_data(tmp_path / "link").num_images == 60


def test_names_that_are_not_utf_8(flowers):
    name = os.fsdecode(b"caf\xe9.png")
    write_image(flowers / "rose" / name)

    data = load_data(flowers, test_fraction=0, validation_fraction=0)

    assert str(flowers / "rose" / name) in data.train.paths
    assert len(data.fingerprint()) == 64
    assert sum(len(batch) for batch in data.train.images(8)) == 61
    write_image(flowers / os.fsdecode(b"caf\xe9") / "a.png")
    with pytest.raises(DataError, match=r"UTF-8 name. Received: .*/caf\\xe9. Rename"):
        load_data(flowers)


def test_what_a_folder_must_hold(tmp_path):
    with pytest.raises(DataError, match="There is no such folder or file"):
        load_data(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"needs one folder per class inside. .* with no folders"):
        load_data(tmp_path)
    write_image(tmp_path / "a" / "1.png")
    write_image(tmp_path / "a" / "2.png")
    with pytest.raises(DataError, match=r"at least two classes. Received: a. Add"):
        load_data(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"must contain images. Received: .*/b' without images"):
        load_data(tmp_path)
    (tmp_path / "b" / "bad.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"Received none of: b. Add images"):
        load_data(tmp_path, on_bad="skip")


def test_two_folders_of_one_part_are_refused(tmp_path):
    for part in ("train", "val", "valid"):
        write_classes(tmp_path / part, {"a": 2, "b": 2})

    with pytest.raises(DataError, match="Each part of the data must have exactly one folder"):
        load_data(tmp_path)


def test_a_class_that_is_absent_from_a_part(tmp_path):
    write_classes(tmp_path / "train", {"a": 5, "b": 5})
    write_classes(tmp_path / "test", {"a": 1})

    (warning,) = load_data(tmp_path, validation_fraction=0).warnings
    assert warning.startswith("no image of b in test, so its accuracy is not known")
    write_classes(tmp_path / "test", {"c": 1})
    with pytest.raises(DataError, match=r"needs at least one training image. Received none of: c"):
        load_data(tmp_path)


def test_classes_of_one_image_are_trained_on_with_a_warning(tmp_path):
    write_classes(tmp_path, {"a": 20, "b": 20, "rare": 1})

    data = load_data(tmp_path)

    assert 2 in data.train.labels
    assert sorted(data.warnings) == [
        "no image of rare in test, so its accuracy is not known",
        "no image of rare in validation",
        "the classes are uneven: b has 14 training images, rare has 1. A model that always "
        "predicts b is right for 50% of them: check the recall of each class and macro F1 instead "
        "of the accuracy, and consider `balance='auto'` in training",
        "these classes have only one training image: rare",
    ]


def test_class_names_give_the_order(flowers):
    data = load_data(flowers, class_names=["tulip", "rose"], test_fraction=0)

    assert data.class_names == ["tulip", "rose"]
    assert np.bincount(data.train.labels).argmax() == 0
    with pytest.raises(DataError, match="Received in addition: tulip"):
        load_data(flowers, class_names=["daisy", "rose"])


def test_remarks_are_counted(flowers):
    Image.new("RGB", (36, 37)).save(flowers / "rose" / "a.jpg", "PNG")
    Image.new("RGB", (36, 38)).save(flowers / "rose" / "b.jpg", "PNG")

    assert load_data(flowers).warnings == [
        f"2 images: PNG, although the suffix is .jpg (such as {flowers}/rose/a.jpg)"
    ]


def write_table(flowers, header, rows, name="table.csv", encoding="utf-8"):
    path = flowers / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


@pytest.mark.parametrize(
    "header", ["image,label", "Filename,Class", "path;target", "file\tcategory"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_of_paths_and_labels(flowers, header, encoding):
    mark = next(mark for mark in ",;\t" if mark in header)
    rows = [f"rose/{i:03}.png{mark}{label}" for i, label in enumerate([10, 9, 10, 9, 2, 2])]

    table = write_table(flowers, header, rows, encoding=encoding)
    data = load_data(table, test_fraction=0, validation_fraction=0)

    assert data.class_names == ["2", "9", "10"]
    assert data.train.labels.tolist() == [2, 1, 2, 1, 0, 0]


def test_a_table_with_splits(flowers):
    rows = [
        f"tulip/{i:03}.png,{'ab'[i % 2]},{part}"
        for i, part in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 4)
    ]

    data = load_data(write_table(flowers, "path,label,split", rows))

    assert [len(split) for split in (data.train, data.validation, data.test)] == [6, 2, 4]


def test_tables_that_cannot_be_meant(flowers):
    with pytest.raises(DataError, match=r"needs a column named .* or 'image'. .*: a, b. Pass "):
        load_data(write_table(flowers, "a,b", ["1,2"]))
    with pytest.raises(DataError, match=r"needs a column named 'kind'. Received the columns: path"):
        load_data(write_table(flowers, "path,label", ["1,2"]), label_column="kind")
    with pytest.raises(DataError, match=r"line 2 of .*table.csv. Complete or remove"):
        load_data(write_table(flowers, "path,label", ["rose/000.png,"]))
    with pytest.raises(DataError, match="Received: 'extra' in line 2"):
        load_data(write_table(flowers, "path,label,split", ["rose/000.png,a,extra"]))
    with pytest.raises(DataError, match="must be CSV in UTF-8"):
        load_data(write_table(flowers, "path,label", ["é,a"], encoding="latin-1"))
    with pytest.raises(UnreadableImagesError, match=r"gone.png: No such file or directory"):
        load_data(write_table(flowers, "path,label", ["gone.png,a", "rose/000.png,b"]))


def test_named_columns(flowers):
    rows = [f"rose/{i:03}.png,{'ab'[i % 2]},{i}" for i in range(8)]
    path = write_table(flowers, "where,kind,label", rows)

    data = load_data(path, image_column="where", label_column="kind")

    assert data.class_names == ["a", "b"]


def test_arrays_and_data_sets_of_one_order_are_split_alike():
    x, y = RNG.integers(0, 256, (40, 5, 6, 3), np.uint8), np.arange(40) % 4

    arrays = load_data((x, y))
    dataset = load_data(tf.data.Dataset.from_tensor_slices((x, y)).batch(7))

    np.testing.assert_array_equal(arrays.test.labels, dataset.test.labels)
    assert arrays.fingerprint() == dataset.fingerprint()
    assert arrays.class_names == ["0", "1", "2", "3"]
    assert (arrays.source, dataset.source) == ("arrays", "tf.data.Dataset")


def test_a_test_set_of_arrays_may_lack_the_last_class():
    x, y = RNG.integers(0, 256, (40, 5, 6, 3), np.uint8), np.arange(40) % 4

    data = load_data((x, y), test=(255 - x[:3], y[:3]))

    assert len(data.test) == 3
    assert data.warnings == ["no image of 3 in test, so its accuracy is not known"]


def test_test_images_that_are_trained_on_too_are_warned_of(flowers):
    x, y = RNG.integers(0, 256, (40, 5, 6, 3), np.uint8), np.arange(40) % 4
    told = "3 of 8 test images are in another part too, so the test figures are too good"

    assert told in load_data((x, y), test=(np.concatenate([x[:3], 255 - x[:5]]), y[:8])).warnings
    assert told.replace("3 of 8", "60 of 60") in load_data(flowers, test=flowers).warnings


@pytest.mark.parametrize("source", [3, [1, 2], None, (1, 2, 3)])
def test_a_source_that_cannot_be_meant(source):
    with pytest.raises(ArgumentError, match="`source` must be a folder"):
        load_data(source)


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")

    with pytest.raises(DataError, match="Unpack an archive first"):
        load_data(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "options", [{"on_bad": "drop"}, {"validation_fraction": 1}, {"test_fraction": -1}, {"seed": -1}]
)
def test_arguments_are_checked(flowers, options):
    with pytest.raises(ArgumentError, match=f"`{next(iter(options))}` must be"):
        load_data(flowers, **options)


@pytest.mark.skipif(not SHARED.exists(), reason="the real images are not beside the repository")
def test_hymenoptera(tmp_path):
    shutil.unpack_archive(SHARED / "hymenoptera.zip", tmp_path)

    data = load_data(tmp_path / "hymenoptera", resize="squash")

    assert data.class_names == ["ants", "bees"]
    assert [len(split) for split in (data.train, data.validation, data.test)] == [207, 37, 153]
    path = data.test.paths[5]
    shown = np.asarray(Image.open(path).convert("RGB"))
    expected = tf.round(tf.image.resize(shown, (96, 96)))
    np.testing.assert_array_equal(next(iter(data.test.images(96)))[5], expected)


@pytest.mark.skipif(not SHARED.exists(), reason="the real images are not beside the repository")
def test_fashion_mnist():
    data = load_data(SHARED / "fashion_mnist.npz")

    assert data.num_classes == 10
    assert [len(split) for split in (data.train, data.validation, data.test)] == [
        51_000,
        9_000,
        10_000,
    ]
    assert np.bincount(data.validation.labels).tolist() == [900] * 10


@pytest.mark.parametrize(
    ("counts", "warned"),
    [
        (
            (85, 4),
            "b has 58 training images, a has 2. A model that always predicts b is right for 97% of",
        ),
        ((40, 8), None),
    ],
)
def test_uneven_classes_are_warned_of(counts, warned):
    x = RNG.integers(0, 256, (sum(counts), 5, 6, 3), np.uint8)

    data = load_data((x, np.repeat([1, 0], counts)), class_names=["a", "b"])

    assert [warning for warning in data.warnings if warned and warned in warning] == data.warnings


def test_few_images_to_choose_by_are_warned_of():
    x = RNG.integers(0, 256, (24, 5, 6, 3), np.uint8)

    data = load_data((x, np.arange(24) % 2))

    assert data.warnings == [
        "only 3 validation images: one more correct image changes the accuracy by 33 points, so "
        "the choices are hardly better than chance"
    ]


def test_images_are_shown_with_their_labels():
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    data = load_data((images, np.arange(24) % 2), class_names=["a", "$b"])
    figure = data.show(5)
    assert [bool(axes.images) for axes in figure.axes] == [True] * 5 + [False] * 3
    assert {axes.get_title() for axes in figure.axes[:5]} == {"a", r"\$b"}
    assert figure._repr_png_().startswith(b"\x89PNG")
