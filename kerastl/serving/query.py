"""Requests and responses, independent of the protocol."""

import base64
import binascii
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerastl._reading import parse_json
from kerastl.serving.cost import decode_cost

Outputs = dict[str, np.ndarray]
LONGEST_NUMBER = 18  # digits that are read as an integer
_OVERSHOOT = 1.0  # levels by which pixels may leave 0 to 255, as some ways to resize make them
_FILES_GO_TO = " For encoded images, use the signature 'serving_bytes'."


class Rejected(Exception):
    """A request that is answered with a status and a reason.

    Args:
        status: of HTTP.
        reason: what arrived and what would do.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Signature:
    """What a signature of a SavedModel takes: one tensor.

    Args:
        name: of the signature.
        input: name of the tensor.
        dtype: `"string"` or a type of NumPy.
        shape: of one row.
    """

    name: str
    input: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def takes_bytes(self) -> bool:
        """Whether rows are encoded images."""
        return self.dtype == "string"


@dataclass(frozen=True, eq=False)
class Query:
    """Rows for a signature.

    Args:
        signature: that is asked.
        rows: `(n, height, width, 3)` or objects `(n,)` of bytes.
        costs: of each row, the pixels that are decoded before the network sees it; none: 0.
    """

    signature: Signature
    rows: np.ndarray
    costs: Sequence[int] = ()

    @property
    def cost(self) -> int:
        """The pixels that are decoded for all rows."""
        return sum(self.costs)


def shown(value: Any) -> str:
    """Return what arrived for an error: of large and deep values no more than the beginning."""
    return reprlib.repr(value)


def version_number(text: str) -> int:
    """Return the number of a version in an address; raise a `Rejected` where it is none."""
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER):
        raise Rejected(404, f"There is no version {shown(text)}: versions are numbers from 1.")
    return int(text)


def json_object(body: bytes, holds: str) -> dict[str, Any]:
    """Read the body of a request.

    Raises:
        Rejected: it is no JSON object; the text says what it should hold.
    """
    try:
        asked = parse_json(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Rejected(400, f"The body is not JSON: {error!s:.100}.") from error
    if not isinstance(asked, dict):
        raise Rejected(400, f"The body must be a JSON object that holds {holds}.")
    return asked


def signature_named(name: Any, signatures: Mapping[str, Signature]) -> Signature:
    """Return the signature that a request names, or `serving_default`."""
    name = name or "serving_default"
    if not isinstance(name, str) or name not in signatures:
        raise Rejected(
            400, f"`signature_name` must be one of {', '.join(signatures)}. Received: {shown(name)}"
        )
    return signatures[name]


def check_count(count: int, max_rows: int) -> None:
    """Raise an error unless the number of rows is from 1 to the maximum."""
    if count < 1:
        raise Rejected(400, "There are no rows. Send a list of at least one image.")
    if count > max_rows:
        raise Rejected(413, f"At most {max_rows} images per request. Received {count}.")


def check_shape(signature: Signature, shape: Sequence[int], max_rows: int) -> int:
    """Return the number of values, or encoded images, in a tensor of rows of a signature.

    Nothing may be made by the numbers of a shape before they are checked here.

    Raises:
        Rejected: the rows have another shape, are none or too many.
    """
    if signature.takes_bytes:
        fits = 1 <= len(shape) <= 4 and all(length == 1 for length in shape[1:])
        wanted = "a batch of encoded images, of shape [n]"
    else:
        fits = tuple(shape[1:]) == signature.shape
        wanted = f"rows of shape {signature.shape}: pixels 0 to 255"
    if not fits:
        raise Rejected(
            400,
            f"{signature.input!r} takes {wanted}. Received shape {shown(list(shape))}."
            + ("" if signature.takes_bytes else _FILES_GO_TO),
        )
    check_count(shape[0], max_rows)
    return math.prod(shape)


def query_of(signature: Signature, values: Any, max_rows: int) -> Query:
    """Return the query of a list of rows: nested numbers, or texts of base64, or bytes.

    Raises:
        Rejected: the rows do not fit the signature, are none or too many.
    """
    if not isinstance(values, list) and (not isinstance(values, np.ndarray) or not values.ndim):
        raise Rejected(400, "There are no rows. Send a list of images.")
    check_count(len(values), max_rows)
    if not signature.takes_bytes:
        return Query(signature, _pixels(signature, values, max_rows))
    rows = np.empty(len(values), object)
    for index, value in enumerate(values):
        rows[index] = value if isinstance(value, bytes) else _from_base64(signature, index, value)
    return Query(signature, rows, [decode_cost(row) for row in rows])


def _from_base64(signature: Signature, index: int, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Rejected(
            400,
            f"Row {index} of {signature.input!r} must be an encoded image in base64. Received: "
            f"{shown(value)} ({error!s:.60}).",
        ) from error


def numbers(values: Any) -> np.ndarray:
    """Return nested lists of numbers as an array.

    Raises:
        ValueError: they are no numbers, or of different lengths.
    """
    try:
        # Of a type: without one NumPy would give all texts the length of the longest.
        return values if isinstance(values, np.ndarray) else np.asarray(values, "float64")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError("something that is not an array of numbers") from error


def _pixels(signature: Signature, values: Any, max_rows: int) -> np.ndarray:
    try:
        rows = numbers(values)
    except ValueError as error:
        raise Rejected(
            400,
            f"Each row of {signature.input!r} must be pixels 0 to 255 of shape {signature.shape}. "
            f"Received {error}.{_FILES_GO_TO}",
        ) from error
    check_shape(signature, rows.shape, max_rows)
    low, high = rows.min(), rows.max()
    if not (low >= -_OVERSHOOT and high <= 255 + _OVERSHOOT):  # nor is a NaN
        raise Rejected(
            400,
            f"The rows of {signature.input!r} must be numbers from 0 to 255. Received "
            f"numbers from {low:.4g} to {high:.4g}.",
        )
    if np.dtype(signature.dtype).kind == "u":
        rows = np.rint(rows).clip(0, 255)
    return rows.astype(signature.dtype)


def texts(values: np.ndarray) -> list[Any]:
    """Return an array as nested lists that JSON takes, bytes as UTF-8."""
    if values.dtype == object:
        decoded = [one.decode("utf-8", "replace") for one in values.ravel()]
        values = np.array(decoded, dtype=object).reshape(values.shape)
    listed: list[Any] = values.tolist()
    return listed
