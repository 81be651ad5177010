"""Checks of arguments; each raises an `ArgumentError` that says what is accepted."""

import difflib
import importlib.util
import math
import numbers
from collections.abc import Iterable
from typing import Any

from kerastl.errors import ArgumentError

_INTS: Any = numbers.Integral  # NumPy's too
_NUMBERS: Any = numbers.Real


def check_int(name: str, value: Any, low: int, high: int | None = None, advice: str = "") -> int:
    """Return `value` when it is an int from `low` to `high`, both included."""
    fits = isinstance(value, _INTS) and not isinstance(value, bool) and value >= low
    if not fits or (high is not None and value > high):
        span = f"an int of at least {low}" if high is None else f"an int from {low} to {high}"
        raise ArgumentError(
            f"`{name}` must be {span}. Received: {name}={value!r}. {advice}".strip()
        )
    return int(value)


def check_float(
    name: str, value: Any, low: float, high: float = math.inf, *, exclusive: bool = False
) -> float:
    """Return `value` when it is a number from `low` to `high`; `exclusive` shuts out `low`."""
    fits = isinstance(value, _NUMBERS) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high or (exclusive and value == low):
        least = "above" if exclusive else "of at least"
        upper = "" if math.isinf(high) else f" and at most {high}"
        raise ArgumentError(
            f"`{name}` must be a number {least} {low}{upper}. Received: {name}={value!r}"
        )
    return float(value)


def check_tensorflow(what: str) -> None:
    """Raise an `ArgumentError` unless Keras runs on TensorFlow."""
    import keras

    if (found := keras.config.backend()) != "tensorflow":
        raise ArgumentError(
            f"{what} needs Keras on TensorFlow. Received: KERAS_BACKEND={found!r}. Start Python "
            "with KERAS_BACKEND=tensorflow; it also loads models that were saved with another "
            "backend. With other backends, `build_transfer_model`, `stages`, `freeze_to` and "
            "`layerwise_optimizer` work."
        )


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` when it is one of `choices`; else name the near ones."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    listed = ", ".join(repr(choice) for choice in known)
    raise ArgumentError(
        f"`{name}` must be one of {listed}. Received: {name}={value!r}.{did_you_mean(value, known)}"
    )


def check_packages(what: str, packages: Iterable[str], extra: str) -> None:
    """Raise, naming the extra, when packages that `what` needs are not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ArgumentError(
            f"{what} needs {', '.join(missing)}, which is not installed. Install it: pip install "
            f"'kerastl[{extra}]'"
        )


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """Return ` Did you mean 'a' or 'b'?`, or nothing when no name is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(value).lower(), by_lower, n=3, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[name]) for name in near)}?"
