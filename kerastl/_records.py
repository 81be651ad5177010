"""Checks plain values (JSON, TOML) against type hints, and creates dataclasses from them."""

import dataclasses
import functools
import reprlib
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
_LARGEST_INT, _LARGEST_FLOAT = 2**63, 1e30  # beyond, formats and plots overflow


def from_dict(record: type[Record], values: Any, called: str = "") -> Record:
    """Create a dataclass from plain values.

    Values are checked against the annotations of the fields, as `check` does.

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
        raise ArgumentError(
            f"{called} must be a JSON object or a TOML table. Received: {reprlib.repr(values)}"
        )
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
        raise ArgumentError(
            f"{called} needs {', '.join(missing)}. Received: {reprlib.repr(values)}"
        )
    kinds: dict[str, Any] = _hints(record)  # type: ignore[arg-type]  # a class can be hashed
    return record(**{name: check(kinds[name], value, name) for name, value in values.items()})


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def check(kind: Any, value: Any, name: str) -> Any:
    """Return a value as a type hint has it; raise an `ArgumentError` where it does not fit.

    Args:
        kind: `str`, `int`, `float` (finite), `bool`, `None`, `Any`, a dataclass, a `TypedDict`, or
            a list, dict, tuple or union of those. A `TypedDict` may have further keys.
        value: of JSON or TOML.
        name: of the value in errors.
    """
    if kind is Any:
        return value
    if isinstance(kind, types.UnionType):
        return _one_of(typing.get_args(kind), value, name)
    if kind in _KINDS or kind is type(None):
        return _plain(kind, value, name)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        return from_dict(kind, value, "" if isinstance(value, dict) else f"`{name}`")
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is list or origin is tuple:
        return _sequence(origin, inner, value, name)
    if not isinstance(value, dict):
        raise _other(name, "a table of names and values", value)
    if origin is dict:
        return {key: check(inner[1], one, f"{name}.{key}") for key, one in value.items()}
    if missing := sorted(kind.__required_keys__ - value.keys()):
        raise ArgumentError(f"`{name}` needs {', '.join(missing)}.")
    for key, one in _hints(kind).items():
        if key in value:
            check(one, value[key], f"{name}.{key}")
    return value


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _one_of(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            return check(kind, value, name)
        except ArgumentError:
            pass
    return check(others[-1], value, name)


def _plain(kind: Any, value: Any, name: str) -> Any:
    accepted, wanted = _KINDS.get(kind, ((), "null"))
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _other(name, wanted, value)
    if isinstance(value, int) and abs(value) >= _LARGEST_INT:
        raise _other(name, f"{wanted} of at most 63 bits", value)
    if isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT:
        raise _other(name, f"{wanted} of at most {_LARGEST_FLOAT:g}", value)
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise _other(name, "a string of whole characters", value) from None
    return value


def _sequence(origin: Any, inner: tuple[Any, ...], value: Any, name: str) -> Any:
    repeated = origin is list or inner[-1] is Ellipsis
    if not isinstance(value, (list, tuple)) or not (repeated or len(value) == len(inner)):
        raise _other(name, "a list" if repeated else f"a list of {len(inner)}", value)
    kinds = (inner[0],) * len(value) if repeated else inner
    pairs = enumerate(zip(kinds, value, strict=True))
    return origin(check(kind, one, f"{name}[{place}]") for place, (kind, one) in pairs)


def _other(name: str, wanted: str, value: Any) -> ArgumentError:
    short = name.rsplit(".", 1)[-1]
    return ArgumentError(f"`{name}` must be {wanted}. Received: {short}={reprlib.repr(value)}")
