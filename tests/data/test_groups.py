"""Copies of a picture, and images of a group, stay on one side of kerastl's own split."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerastl.data.copies import copies_of
from kerastl.data.groups import groups_in_names, join_by_keys
from kerastl.data.load import load_data
from kerastl.data.partition import stratified_split
from kerastl.errors import DataError

RNG = np.random.default_rng(0)


def photo(number):
    """A picture that survives being stored again: smooth."""
    coarse = np.random.default_rng(number).integers(0, 256, (7, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((64, 60), Image.Resampling.BICUBIC)


def sides(data):
    """The part of each file by its name."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {p.rsplit("/", 1)[1]: part for part, s in parts.items() for p in s.paths}


@pytest.fixture(scope="module")
def bursts(tmp_path_factory):
    """Thirty pictures a class, five of them also stored twice more, smaller and as JPEG."""
    root = tmp_path_factory.mktemp("bursts")
    for label, name in enumerate(("a", "b")):
        (root / name).mkdir()
        for number in range(30):
            image = photo(100 * label + number)
            image.save(root / name / f"{name}{number:02}_0.png")
            if number < 5:
                image.save(root / name / f"{name}{number:02}_1.jpg", quality=60)
                image.resize((40, 36)).save(root / name / f"{name}{number:02}_2.png")
                image.save(root / name / f"{name}{number:02}_3.png")
    return root


def test_copies_stay_on_one_side(bursts):
    for seed in range(3):
        part_of = sides(load_data(bursts, seed=seed))

        for name in "ab":
            for number in range(5):
                assert (
                    len({part_of[f] for f in part_of if f.startswith(f"{name}{number:02}_")}) == 1
                )
        assert set(part_of.values()) == {"train", "validation", "test"}


def test_what_is_found_in_the_name_stays_on_one_side(bursts):
    part_of = sides(load_data(bursts, group_by=r"/[ab](\d)"))

    assert len({part_of[f] for f in part_of if f[1] == "2"}) == 1
    assert "test" in part_of.values()
    with pytest.raises(DataError, match=r"`group_by` matches no image name. Received: 'patient'"):
        load_data(bursts, group_by="patient")


def test_a_column_of_groups(bursts):
    rows = [f"{n}/{n}{i:02}_0.png,{n},p{i // 3}" for n in "ab" for i in range(30)]
    (bursts / "t.csv").write_text("path,label,patient\n" + "\n".join(rows))

    part_of = sides(load_data(bursts / "t.csv", group_column="patient"))

    for patient in range(10):
        mine = {part_of[f"{n}{i:02}_0.png"] for n in "ab" for i in range(30) if i // 3 == patient}
        assert len(mine) == 1
    assert set(part_of.values()) == {"train", "validation", "test"}


def test_copies_in_arrays_stay_on_one_side():
    x = RNG.integers(0, 256, (20, 6, 6, 3), np.uint8)
    x, y = np.concatenate([x, x, x]), np.tile(np.arange(20) % 2, 3)

    data = load_data((x, y))

    seen = [{one.tobytes() for one in next(iter(part.images(6, 60))).numpy()}
            for part in (data.train, data.validation, data.test)]  # fmt: skip
    assert sum(map(len, seen)) == len(set.union(*seen)) == 20
    assert all(seen)


@pytest.fixture(scope="module")
def stored_again():
    """Forty pictures, and ten of them once more, darker."""
    x = np.stack([np.asarray(photo(number)) for number in range(40)])
    return x, (x[:10] * 0.9).astype("uint8")


def as_arrays(x, y):
    return x, y


def as_dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(7)


@pytest.mark.parametrize("form", [as_arrays, as_dataset])
def test_near_copies_in_any_form_stay_on_one_side(stored_again, form):
    x, again = stored_again

    data = load_data(form(np.concatenate([x, again]), np.arange(50) % 2))

    prints = [part.source.prints() for part in (data.train, data.validation, data.test)]
    assert all(prints)
    assert not np.any(copies_of(prints[1], prints[0]))
    assert not np.any(copies_of(prints[2], prints[0] + prints[1]))
    assert not [told for told in data.warnings if "another part" in told]


@pytest.mark.parametrize("form", [as_arrays, as_dataset, "folder", "npz"])
def test_near_copies_across_given_parts_are_told(stored_again, form, tmp_path):
    x, again = stored_again
    y = np.arange(40) % 2
    if form == "folder":
        for part, images in (("train", x), ("val", again)):
            for number, image in enumerate(images):
                file = tmp_path / part / "ab"[number % 2] / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
        data = load_data(tmp_path)
    elif form == "npz":
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=again, y_test=y[:10])
        data = load_data(tmp_path / "a.npz")
    else:
        data = load_data(form(x, y), test=form(np.concatenate([again, x[20:23]]), y[:13]))

    told = [text for text in data.warnings if "another part" in text]
    near = "10 of {} test images look like images in another part too, so the test figures are too "
    assert told[-1].startswith(near.format(13 if len(told) == 2 else 10))
    assert len(told) == 1 or told[0].startswith("3 of 13 test images are in another part too")


def test_small_pictures_have_no_look():
    """Of clothes of 28 x 28 pixels dozens look alike; what is equal is known all the same."""
    x = RNG.integers(0, 256, (20, 28, 40, 3), np.uint8)
    data = load_data((x, np.arange(20) % 2), test_fraction=0, validation_fraction=0)

    assert {one.look for one in data.train.source.prints()} == {""}
    assert len({one.picture for one in data.train.source.prints()}) == 20


def test_pictures_that_are_all_alike_are_no_copies(tmp_path):
    for number in range(60):
        image = photo(0)
        image.putpixel((number, 0), (number, 0, 0))
        file = tmp_path / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        image.save(file)

    data = load_data(tmp_path)

    assert [len(part) for part in (data.train, data.validation, data.test)] == [41, 7, 12]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60),
    st.floats(0, 0.9),
    st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_groups_stay_whole_and_every_class_keeps_an_image(pairs, fraction, seed):
    labels, groups = np.array(pairs).T

    kept, held_out = stratified_split(labels, fraction, seed, groups)

    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert not {*groups[kept]} & {*groups[held_out]}
    assert {*labels[kept]} == {*labels}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array), st.floats(0, 0.9))
@settings(max_examples=50, deadline=None)
def test_groups_of_one_change_nothing(labels, fraction):
    alone = np.append(np.arange(len(labels)), len(labels))
    more = np.append(labels, labels[-1])

    np.testing.assert_array_equal(
        stratified_split(labels, fraction, 1)[1],
        stratified_split(labels, fraction, 1, alone[:-1])[1],
    )
    assert len(stratified_split(more, fraction, 1, alone)[0]) > 0


def test_items_that_share_keys():
    joined = join_by_keys(["ab", "c", "bd", "", "d"])

    assert joined[0] == joined[2] == joined[4]
    assert len({joined[0], joined[1], joined[3]}) == 3
    assert join_by_keys([]).tolist() == []


def test_groups_in_names():
    assert groups_in_names(["p1_a", "p1_b", "x"], r"^(p\d)_") == ["('p1',)", "('p1',)", ""]
    assert groups_in_names(["p1_a", "p2_b"], r"^p\d") == ["'p1'", "'p2'"]
