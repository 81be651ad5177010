"""Frozen dataclasses from plain values, as JSON and TOML have them."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from kerastl._checks import did_you_mean
from kerastl.errors import ArgumentError

Record = TypeVar("Record")

_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a string"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
}


def from_dict(record: type[Record], values: Any, called: str = "") -> Record:
    """Return the dataclass that plain values stand for.

    Strings, numbers, `None`, tuples (from lists) and dataclasses (from dicts) inside are checked
    against the annotations of the fields; other values are taken as they are.

    Args:
        record: a dataclass; its own `__post_init__` checks the ranges.
        values: a dict with a value for each field that has no default.
        called: what an error calls the record. Default: `"A "` and the name of the class.

    Raises:
        ArgumentError: a name is unknown or missing, or a value is of another type.

    Example:
        >>> from_dict(Phase, {"name": "head", "freeze_depth": 7, "method": "probe"})
        Phase(name='head', freeze_depth=7, method='probe', ...)
    """
    called = called or f"A {record.__name__}"
    if not isinstance(values, dict):
        raise ArgumentError(f"{called} must be a table of names and values. Received: {values!r}")
    fields: Any = dataclasses.fields(record)  # type: ignore[arg-type]
    known = [field.name for field in fields]
    for name in values:
        if name not in known:
            raise ArgumentError(
                f"{called} has no field {name!r}.{did_you_mean(name, known)} Its fields: "
                f"{', '.join(known)}."
            )
    missing = [f.name for f in fields if _is_required(f) and f.name not in values]
    if missing:
        raise ArgumentError(f"{called} needs {', '.join(missing)}. Received: {values!r}")
    kinds = typing.get_type_hints(record)
    return record(**{name: _converted(name, value, kinds[name]) for name, value in values.items()})


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _converted(name: str, value: Any, kind: Any) -> Any:
    """Convert a value of JSON to the type of a field; raise if it has another type."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    if len(others) > 1:
        return value
    (kind,) = others
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_dict(kind, value)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        repeated = inner[-1] is Ellipsis
        if not isinstance(value, (list, tuple)) or not (repeated or len(value) == len(inner)):
            wanted = "a list" if repeated else f"a list of {len(inner)}"
            raise ArgumentError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
        inner = (inner[0],) * len(value) if repeated else inner
        return tuple(_converted(name, v, k) for v, k in zip(value, inner, strict=True))
    if kind in _KINDS:
        accepted, told = _KINDS[kind]
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ArgumentError(f"`{name}` must be {told}. Received: {name}={value!r}")
    return value
