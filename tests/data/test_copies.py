"""Copies, leaks and conflicts among the pictures of a set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerastl.data import scan
from kerastl.data.copies import Item, exact_copies, near_copies, to_leave_out, warnings_of
from kerastl.data.near_duplicates import ALIKE, SIDE, difference_hash, group_near_duplicates


def item(path, part="train", label="cat", content="", look=""):
    return Item(path, part, label, content or path, look)


def test_exact_copies_are_grouped_in_order():
    items = [item("a", content="x"), item("b"), item("c", content="x"), item("d", content="x")]

    (group,) = exact_copies(items)

    assert [one.path for one in group.items] == ["a", "c", "d"]
    assert (group.exact, group.is_leak, group.is_conflict) == (True, False, False)


@pytest.mark.parametrize(
    ("parts", "labels", "leak", "conflict", "left_out"),
    [
        (("train", "train"), ("cat", "cat"), False, False, {"1": "a copy of 0"}),
        (("train", "test"), ("cat", "cat"), True, False, {"0": "a copy of 1"}),
        (("validation", "test"), ("cat", "cat"), True, False, {"0": "a copy of 1"}),
        (("train", "validation"), ("cat", "cat"), True, False, {"0": "a copy of 1"}),
        (
            ("train", "test"),
            ("cat", "dog"),
            True,
            True,
            {"0": "under several classes: cat, dog", "1": "under several classes: cat, dog"},
        ),
    ],
)
def test_what_a_copy_spoils_and_what_is_left_out(parts, labels, leak, conflict, left_out):
    pairs = enumerate(zip(parts, labels, strict=True))
    items = [item(str(n), part, label, content="x") for n, (part, label) in pairs]

    copies = exact_copies(items)

    assert (copies[0].is_leak, copies[0].is_conflict) == (leak, conflict)
    assert to_leave_out(copies) == left_out


def test_near_copies_are_never_left_out():
    look = "0" * 32
    items = [item("a", look=look), item("b", "test", look="1" + look[1:]), item("c", look="f" * 32)]

    copies = near_copies(items)

    assert [[one.path for one in group.items] for group in copies] == [["a", "b"]]
    assert copies[0].is_leak
    assert to_leave_out(copies) == {}


def test_exact_copies_are_not_near_ones_too():
    items = [item("a", content="x", look="0" * 32), item("b", content="x", look="0" * 32)]

    assert near_copies(items) == []


def test_warnings_have_a_count_and_an_example():
    copies = exact_copies(
        [item("a", content="1"), item("b", "test", content="1"), item("c", content="2"),
         item("d", label="dog", content="2"), item("e", content="3"), item("f", content="3")]
    )  # fmt: skip

    assert warnings_of(copies) == [
        "1 pictures are in more than one part of the data, so the test result is too good "
        "(such as a and b)",
        "1 pictures are in more than one class (such as c and d)",
        "1 pictures occur more than once (such as e and f)",
    ]
    assert warnings_of([]) == []


def test_the_look_is_which_neighbour_is_brighter():
    ramp = np.tile(np.arange(SIDE), (SIDE, 1))

    assert difference_hash(ramp) == "f" * 16 + "0" * 16
    assert difference_hash(ramp.T) == "0" * 16 + "f" * 16
    assert difference_hash(ramp * 20 + 9) == difference_hash(ramp), (
        "brightness and contrast do not matter"
    )
    assert difference_hash(np.full((SIDE, SIDE), 7)) == "", "one colour says nothing"


def by_brute_force(looks):
    """Groups of places, by comparing each with each."""
    numbers = [int(look, 16) if look else None for look in looks]
    group = list(range(len(looks)))
    for one, left in enumerate(numbers):
        for other, right in enumerate(numbers[:one]):
            if left is not None and right is not None and (left ^ right).bit_count() <= ALIKE:
                group = [group[other] if g == group[one] else g for g in group]
    found = [[n for n, g in enumerate(group) if g == number] for number in set(group)]
    return sorted(places for places in found if len(places) > 1)


FLIPS = st.lists(st.integers(0, 127), max_size=9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 2**128 - 1, 0x1234 << 60, None]), FLIPS), max_size=9))
def test_alike_groups_are_those_of_brute_force(drawn):
    looks = []
    for number, flips in drawn:
        for flip in flips:
            number = None if number is None else number ^ 1 << flip
        looks.append("" if number is None else f"{number:032x}")

    assert group_near_duplicates(looks) == by_brute_force(looks)


def test_a_picture_stored_again_looks_alike(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(8):
        small = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8))
        picture = small.resize((160, 120), Image.Resampling.BICUBIC)
        for name, image in {"whole": picture, "half": picture.resize((80, 60))}.items():
            paths.append(str(tmp_path / f"{number}_{name}.jpg"))
            image.save(paths[-1], quality=60 if name == "half" else 95)

    reports, _ = scan.scan_files(paths, sums=True)

    assert group_near_duplicates([report.look for report in reports]) == [
        [2 * number, 2 * number + 1] for number in range(8)
    ]
