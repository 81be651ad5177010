import contextlib
import typing
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import pytest

from kerastl._records import check, from_dict
from kerastl.errors import ArgumentError
from kerastl.results import run_shapes


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
        ([], "A Outer must be a JSON object"),
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


class Picture(TypedDict):
    file: str
    sides: tuple[float, float] | None
    note: NotRequired[str]


Rows = dict[str, int | list[Picture] | None]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Picture, {"file": "a", "sides": [1, 2.5], "new": 1}),
        (Picture, {"file": "a\udc80", "sides": None, "note": "ä"}),
        (Rows, {"a": 1, "b": None, "c": [{"file": "a", "sides": None}]}),
        (list[int], []),
        (bool, True),
        (Inner, {"name": "a"}),
        (Any, object()),
    ],
)
def test_what_fits_a_hint(kind, value):
    check(kind, value, "x")


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (Picture, [], "`x` must be a table of names and values. Received: x=[]"),
        (Picture, {"file": "a"}, "`x` needs sides."),
        (Picture, {"file": 1, "sides": None}, "`x.file` must be a string. Received: file=1"),
        (Picture, {"file": "\ud800", "sides": None}, "`x.file` must be a string of whole char"),
        (Picture, {"file": "a", "sides": [1]}, "`x.sides` must be a list of 2. Received: sides"),
        (Picture, {"file": "a", "sides": [1, "b"]}, "`x.sides[1]` must be a number"),
        (Picture, {"file": "a", "sides": None, "note": None}, "`x.note` must be a string"),
        (Rows, {"a": [{"file": 1, "sides": None}]}, "`x.a[0].file` must be a string"),
        (Rows, {"a": 0.5}, "`x.a` must be a list. Received: a=0.5"),
        (list[int], [0, True], "`x[1]` must be an integer"),
        (list[int], [2**63], "`x[0]` must be an integer of at most 63 bits"),
        (list[float], [1e999], "`x[0]` must be a number of at most 1e+30"),
        (list[float], [float("nan")], "`x[0]` must be a number of at most 1e+30"),
        (list[float], [10**400], "`x[0]` must be a number of at most 63 bits"),
        (Inner, {}, "A Inner needs name"),
        (Inner, 1, "`x` must be a JSON object or a TOML table"),
        (str, 1.5, "`x` must be a string. Received: x=1.5"),
        (dict[str, int], {"a" * 10**6: "b" * 10**6}, "must be an integer"),
    ],
)
def test_what_does_not_fit_a_hint(kind, value, told):
    with pytest.raises(ArgumentError) as caught:
        check(kind, value, "x")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "hint", [hint for hint in vars(run_shapes).values() if typing.is_typeddict(hint)]
)
def test_hints_of_run_files_can_be_checked(hint):
    """No hint in them is of a kind that `check` does not know."""
    for value in ({}, dict.fromkeys(hint.__annotations__)):
        with contextlib.suppress(ArgumentError):
            check(hint, value, "x")
