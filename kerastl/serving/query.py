"""What a client asks and is told, whatever protocol it speaks."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Outputs = dict[str, np.ndarray]


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
    """

    signature: Signature
    rows: np.ndarray


def json_object(body: bytes, holds: str) -> dict[str, Any]:
    """Read the body of a request.

    Raises:
        Rejected: it is no JSON object; the text says what it should hold.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(400, f"The body is no JSON: {error}.") from error
    if not isinstance(asked, dict):
        raise Rejected(400, f"The body must be a JSON object that holds {holds}.")
    return asked


def signature_named(name: str, signatures: Mapping[str, Signature]) -> Signature:
    """Return the signature that a request names, or `serving_default`."""
    name = name or "serving_default"
    if name not in signatures:
        raise Rejected(
            400, f"`signature_name` must be one of {', '.join(signatures)}. Received: {name!r}"
        )
    return signatures[name]


def query_of(signature: Signature, values: Any, max_rows: int) -> Query:
    """Return the query of a list of rows: nested numbers, or texts of base64, or bytes.

    Raises:
        Rejected: the rows do not fit the signature, are none or too many.
    """
    if not isinstance(values, list) and (not isinstance(values, np.ndarray) or not values.ndim):
        raise Rejected(400, "There are no rows. Give a list of images.")
    if not len(values):
        raise Rejected(400, "There are no rows. Give a list of at least one image.")
    if len(values) > max_rows:
        raise Rejected(413, f"At most {max_rows} images a request. Received {len(values)}.")
    if not signature.takes_bytes:
        return Query(signature, _numbers(signature, values))
    rows = np.empty(len(values), object)
    for index, value in enumerate(values):
        rows[index] = value if isinstance(value, bytes) else _from_base64(signature, index, value)
    return Query(signature, rows)


def _from_base64(signature: Signature, index: int, value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Rejected(
            400,
            f"Row {index} of {signature.input!r} must be an encoded image in base64. Received: "
            f"{str(value)[:40]!r} ({error}).",
        ) from error


def _numbers(signature: Signature, values: Any) -> np.ndarray:
    try:
        rows = np.asarray(values)
    except ValueError as error:
        raise Rejected(400, f"The rows of {signature.input!r} have different shapes.") from error
    if rows.dtype.kind not in "uif" or rows.shape[1:] != signature.shape:
        what = f"shape {rows.shape[1:]}" if rows.dtype.kind in "uif" else "what are no numbers"
        raise Rejected(
            400,
            f"Each row of {signature.input!r} must be pixels 0 to 255 of shape {signature.shape}. "
            f"Received {what}. Encoded images go to the signature 'serving_bytes'.",
        )
    if not np.isfinite(rows).all():
        raise Rejected(400, f"The rows of {signature.input!r} hold numbers that are not finite.")
    if np.dtype(signature.dtype).kind == "u" and (rows.min() < 0 or rows.max() > 255):
        raise Rejected(400, f"The rows of {signature.input!r} must hold numbers from 0 to 255.")
    return rows.astype(signature.dtype)


def texts(values: np.ndarray) -> list[Any]:
    """Return an array as nested lists that JSON takes, bytes as UTF-8."""
    if values.dtype == object:
        decoded = [one.decode("utf-8", "replace") for one in values.ravel()]
        values = np.array(decoded, dtype=object).reshape(values.shape)
    listed: list[Any] = values.tolist()
    return listed
