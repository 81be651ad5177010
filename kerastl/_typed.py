"""Checks arguments of public calls against their type hints."""

import collections.abc
import functools
import inspect
import numbers
import os
import pathlib
import reprlib
import types
import typing
from typing import Any, TypeVar

from kerastl.errors import ArgumentError

T = TypeVar("T")

_PREDICTIONS = (
    "what `collect_predictions` returns",
    "Create one with `kerastl.collect_predictions(model, data.test)`.",
)
# By the name of a class: what an argument of it is, and the call that makes one.
_MADE_BY = {
    "Model": (
        "a keras.Model",
        "Build one with `kerastl.build_transfer_model(name, num_classes)`, or load one with "
        "`keras.saving.load_model(file)`.",
    ),
    "ImageData": (
        "what `load_data` returns",
        "Load it with `data = kerastl.load_data(...)`, for folders, files, arrays and tf.data.",
    ),
    "Split": (
        "a split, such as `data.train`",
        "`data = kerastl.load_data(...)` contains the splits.",
    ),
    "Diagnosis": (
        "what `diagnose` returns",
        "Create one with `diagnosis = kerastl.diagnose(model, data)`.",
    ),
    "BasePredictions": _PREDICTIONS,
    "Predictions": _PREDICTIONS,
    "Recipe": (
        "a Recipe",
        "Use `kerastl.advise(diagnosis).recipe`, or `kerastl.make_recipe(name, ...)` for a "
        "named recipe.",
    ),
    "Phase": ("a Phase", "Create one with `kerastl.Phase(name, freeze_depth)`."),
    "DataOptions": ("a DataOptions", "Make it: `kerastl.DataOptions(image_column='file')`."),
    "SearchSpace": ("a SearchSpace", "Make it: `kerastl.SearchSpace(learning_rates=(1e-3,))`."),
}
_PLAIN: dict[Any, tuple[Any, str]] = {
    str: (str, "a string"),
    int: (numbers.Integral, "an int"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    dict: (collections.abc.Mapping, "a dict"),
    types.NoneType: (types.NoneType, "None"),
    pathlib.Path: (os.PathLike, "a path"),
    os.PathLike: (os.PathLike, "a path"),
    collections.abc.Callable: (collections.abc.Callable, "a function"),
    collections.abc.Mapping: (collections.abc.Mapping, "a dict"),
}
_LISTS = (list, tuple, collections.abc.Sequence)


def typed(thing: T) -> T:
    """Return a function, or a class with its methods, that checks the types of arguments.

    The errors say what arrived, what would do, and the call that makes it.
    """
    if not isinstance(thing, type):
        return _typed_call(thing, thing.__qualname__)  # type: ignore[attr-defined]
    for name, one in vars(thing).copy().items():
        if inspect.isfunction(one) and (name == "__init__" or name[0] != "_"):
            setattr(thing, name, _typed_call(one, f"{thing.__name__}.{name}"))
    return thing


def _typed_call(call: Any, name: str) -> Any:
    signature = inspect.signature(call)
    name = name.removesuffix(".__init__")

    @functools.wraps(call)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            return call(*args, **kwargs)  # which tells what it does not take
        for argument, value in given.items():
            parameter = signature.parameters[argument]
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if value is not parameter.default and not fits(parameter.annotation, value):
                raise _other(name, argument, parameter.annotation, value)
        return call(*args, **kwargs)

    return checked


def fits(hint: Any, value: Any) -> bool:
    """Return whether a value matches a type hint; lists and tuples are interchangeable."""
    if hint is Any or hint is inspect.Parameter.empty:
        return True
    if isinstance(hint, str):  # where the class is imported by those who call alone
        return hint.rpartition(".")[2] in {one.__name__ for one in type(value).__mro__}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(one, value) for one in inner)
    if origin is typing.Literal:
        return isinstance(value, str) and value in inner
    kind = origin or hint
    if kind in _LISTS:
        return _fits_list(kind, inner, value)
    if _is_array(kind):
        return hasattr(value, "__array__")
    if kind is bool:
        return _is_bool(value)
    if kind in _PLAIN:
        return isinstance(value, _PLAIN[kind][0]) and not _is_bool(value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _is_bool(value: Any) -> bool:
    """Return whether this is a truth value, Python's or NumPy's, which is not imported for that."""
    return type(value).__name__ in ("bool", "bool_")


def _is_array(kind: Any) -> bool:
    return getattr(kind, "__name__", "") == "ndarray"


def _fits_list(kind: Any, inner: tuple[Any, ...], value: Any) -> bool:
    if isinstance(value, (str, bytes)) or not isinstance(value, collections.abc.Sequence):
        return False
    if not inner:
        return True
    if kind is tuple and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(fits, inner, value))
    return all(fits(inner[0], one) for one in value)


def described(hint: Any) -> str:
    """Return what a type hint asks for, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(described, inner)))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    kind = origin or hint
    if kind is tuple and inner[-1] is not ...:
        return f"({', '.join(map(described, inner))})"
    if kind in _LISTS:
        return f"a list, each item {described(inner[0])}" if inner else "a list"
    if _is_array(kind):
        return "a NumPy array"
    if kind in _PLAIN:
        return _PLAIN[kind][1]
    name = _name(kind)
    return _MADE_BY[name][0] if name in _MADE_BY else f"a {name}"


def _name(hint: Any) -> str:
    return hint.rpartition(".")[2] if isinstance(hint, str) else getattr(hint, "__name__", "")


def _advice(hint: Any) -> str:
    if (name := _name(hint)) in _MADE_BY:
        return _MADE_BY[name][1]
    inner = typing.get_args(hint)
    return _advice(inner[0]) if inner else ""


def _other(call: str, argument: str, hint: Any, value: Any) -> ArgumentError:
    advice = _advice(hint) or f"`help(kerastl.{call})` tells more."
    return ArgumentError(
        f"`{argument}` must be {described(hint)}. Received: {_received(value)}. {advice}"
    )


def _received(value: Any) -> str:
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return reprlib.repr(value)
    if isinstance(value, os.PathLike):
        return f"{type(value).__name__} {os.fspath(value)!r}"
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} {reprlib.repr(value)}"
    return type(value).__name__
