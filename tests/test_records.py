from dataclasses import dataclass

import pytest

from kerastl._records import from_dict
from kerastl.errors import ArgumentError


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Outer:
    count: int
    rate: float | None = None
    size: tuple[int, int] = (1, 1)
    parts: tuple[Inner, ...] = ()
    open: bool = False


def test_lists_become_tuples_and_dicts_dataclasses():
    values = {"count": 2, "rate": 1, "size": [3, 4], "parts": [{"name": "a"}], "open": True}
    assert from_dict(Outer, values) == Outer(2, 1, (3, 4), (Inner("a"),), True)
    assert from_dict(Outer, {"count": 2, "rate": None}) == Outer(2)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "A Outer must be a table"),
        ({}, "A Outer needs count"),
        ({"count": 1, "cuont": 2}, r"no field 'cuont'.*Did you mean 'count'"),
        ({"count": "1"}, "`count` must be an integer. Received: count='1'"),
        ({"count": True}, "`count` must be an integer"),
        ({"count": 1, "rate": "x"}, "`rate` must be a number"),
        ({"count": 1, "size": [1]}, "`size` must be a list of 2"),
        ({"count": 1, "parts": {}}, "`parts` must be a list"),
        ({"count": 1, "parts": [{}]}, "A Inner needs name"),
        ({"count": 1, "open": 1}, "`open` must be true or false"),
    ],
)
def test_what_does_not_fit_is_told(values, told):
    with pytest.raises(ArgumentError, match=told):
        from_dict(Outer, values)


def test_the_caller_names_the_record():
    with pytest.raises(ArgumentError, match="The step needs name"):
        from_dict(Inner, {}, called="The step")
