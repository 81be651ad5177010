import numpy as np
import pytest

from kerastl._checks import check_choice, check_float, check_int, did_you_mean
from kerastl.errors import ArgumentError, BadFile, UnreadableImagesError


@pytest.mark.parametrize("value", [-1, 6, 1.0, True, None, "2"])
def test_check_int_refuses(value):
    with pytest.raises(ArgumentError, match=r"`freeze_depth` must be an int from 0 to 5. Received"):
        check_int("freeze_depth", value, 0, 5)


@pytest.mark.parametrize("value", [0.0, -1, float("nan"), float("inf"), True, "1", 2])
def test_check_float_refuses(value):
    with pytest.raises(ArgumentError, match="`rate` must be a number above 0.0 and at most 1.0"):
        check_float("rate", value, 0.0, 1.0, exclusive=True)


def test_checks_return_the_value():
    assert check_int("n", 3, 0) == 3
    assert check_float("x", 1, 0.0) == 1.0
    assert type(check_int("n", np.int64(3), 0)) is int
    assert type(check_float("x", np.float32(1), 0.0)) is float
    assert check_choice("kind", "a", ["a", "b"]) == "a"


def test_a_near_miss_is_named():
    with pytest.raises(ArgumentError, match="Did you mean 'large_similar'"):
        check_choice("scenario", "large_similiar", ["large_similar", "guide"])
    assert did_you_mean("zzz", ["abc"]) == ""


def test_unreadable_files_are_all_listed():
    error = UnreadableImagesError([BadFile("a.jpg", "empty"), BadFile("b.png", "cut")], 9)
    assert "2 of 9 files" in str(error)
    assert "a.jpg: empty" in str(error)
    assert "b.png: cut" in str(error)
    assert 'on_bad="skip"' in str(error)
    assert error.exit_status == 2
