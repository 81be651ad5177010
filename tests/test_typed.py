"""Public calls given what they do not take: refused in words, before any work."""

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pytest

import kerastl
from kerastl._typed import described, fits
from kerastl.errors import ArgumentError, KerastlError
from tests.training.small import SIZE, small_backbone, small_data

LABELS = np.arange(24) % 3
PIXELS = np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3))
SUGGESTED = r"`(help\()?[\w.]+( = )?[\w.]*\(.*\)`|`.*\.recipe`"


def calls():
    """All public functions and methods, by the name that `kerastl.` has before it.

    The probes leave checks to scikit-learn, whose contract wants it so.
    """
    for name in kerastl.__all__:
        thing = getattr(kerastl, name)
        if name.endswith("Probe") or name == "LinearSVM":
            continue
        if not isinstance(thing, type):
            yield name, thing
            continue
        for method, one in vars(thing).items():
            if inspect.isfunction(one) and (method == "__init__" or method[0] != "_"):
                yield f"{name}.{method}", one


CALLS = dict(calls())


def arguments(any_kind):
    for name, call in CALLS.items():
        for one in inspect.signature(call).parameters.values():
            if one.name != "self" and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                if (one.annotation is Any) == any_kind:
                    yield name, one


@pytest.fixture(scope="module")
def values():
    data = small_data(class_names=["a", "b", "c"])
    model = kerastl.build_transfer_model(small_backbone(), 3, class_names=[*"abc"])
    given = {
        "text": "photos/", "path": Path("photos/"), "pixels": PIXELS, "pair": (PIXELS, LABELS),
        "none": None, "int": 3, "float": 2.5, "list": [1, 2], "bytes": b"ab", "dict": {"a": 1},
        "true": True, "object": object(),
    }  # fmt: skip
    return given | {"data": data, "split": data.test, "model": model}


def test_every_argument_of_every_public_call_refuses_other_types(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = 0
    for name, one in arguments(any_kind=False):
        own = {"self": None} if "." in name else {}
        for value in values.values():
            if value is one.default or fits(one.annotation, value):
                continue
            with pytest.raises(ArgumentError) as error:
                CALLS[name](**own, **{one.name: value})
            said = str(error.value)
            wanted = f"`{one.name}` must be {described(one.annotation)}. Received: "
            assert said.startswith(wanted), said
            assert re.search(SUGGESTED, said), said
            refused += 1
    assert refused > 1500
    assert not os.listdir()


# Arguments without a type: the others of the call, and which values it takes.
IMAGES = {"pixels", "pair", "split", "none"}
OF_ANY_TYPE = {
    "Run.predict images": (("run",), {"pixels"}),
    "Run.evaluate data": (("run",), set()),  # which are all of other classes
    "Run.explain images": (("run",), {"pixels"}),
    "build_transfer_model strategy": (("backbone", 3), {"none"}),
    "collect_predictions data": (("model",), {"pair", "split"}),
    "evaluate data": (("model",), {"pair", "split"}),
    "explain images": (("model",), {"pixels"}),
    "export_fully_convolutional parity_data": (
        ("model", "out"),
        {"pixels", "pair", "split", "none"},
    ),
    "export_model parity_data": (("model", "out"), IMAGES),
    "export_model representative_data": (
        ("model", "out", ("a", "b", "c"), ("litert_int8",)),
        IMAGES,
    ),
    "fine_tune loss": (("model", "data"), {"none"}),
    "fine_tune metrics": (("model", "data"), set()),
    "layerwise_optimizer optimizer": (("model",), set()),
    "layerwise_optimizer learning_rate": (("model",), {"none", "int", "float"}),
    "load_data source": ((), {"pair"}),
    "load_data test": (("pair",), {"none", "pair"}),
    "search strategy": (("data", "backbone"), {"none"}),
    "train data": ((), {"pair", "data"}),
    "train backbone": (("pair",), {"none"}),
    "train test": (("pair",), {"none", "pair"}),
    "train strategy": (("pair",), {"none"}),
}


@pytest.mark.parametrize("argument", OF_ANY_TYPE)
def test_an_argument_of_any_type_refuses_what_it_does_not_take(
    argument, values, finished_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    others, taken = OF_ANY_TYPE[argument]
    call, name = argument.split()
    known = values | {"backbone": small_backbone(), "run": kerastl.load_run(finished_run.directory)}
    names = inspect.signature(CALLS[call]).parameters
    given = {key: known.get(other, other) for key, other in zip(names, others, strict=False)}
    for kind, value in values.items():
        if kind not in taken:
            with pytest.raises(KerastlError):
                CALLS[call](**given, **{name: value})
    assert not os.listdir()


def test_no_argument_of_any_type_is_forgotten():
    assert {f"{name} {one.name}" for name, one in arguments(any_kind=True)} == {*OF_ANY_TYPE}


@pytest.mark.parametrize(
    ("hint", "good", "bad", "words"),
    [
        (int, [3, np.int64(3)], [True, 2.5, "3"], "an int"),
        (float | None, [1, 0.5, np.float32(1), None], [True, "1"], "a number or None"),
        (bool, [False, np.True_], [1, "no"], "True or False"),
        (str | Path, ["a", Path("a")], [b"a", 3], "a string or a path"),
        (Sequence[str], [["a"], ("a", "b"), []], ["ab", [1], {"a"}], "a list, each item a string"),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), 3], "(an int, an int)"),
        (np.ndarray, [PIXELS], [[1, 2], "a"], "a NumPy array"),
        (Literal["a"] | None, ["a", None], ["b", PIXELS], "'a' or None"),
        (Mapping[str, int], [{}], [[], "a"], "a dict"),
        (Callable[[int], int] | None, [abs, None], [3], "a function or None"),
        ("keras.Model", [keras.Model()], ["a", object()], "a keras.Model"),
    ],
)
def test_hints_and_what_fits_them(hint, good, bad, words):
    assert all(fits(hint, value) for value in good)
    assert not any(fits(hint, value) for value in bad)
    assert described(hint) == words
