"""The open inference protocol, V2: https://github.com/kserve/open-inference-protocol."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerastl.serving.query import (
    LONGEST_NUMBER,
    Outputs,
    Query,
    Rejected,
    Signature,
    check_shape,
    json_object,
    numbers,
    query_of,
    shown,
    texts,
)

BINARY_HEADER = "inference-header-content-length"
"""Says how long the JSON is, where tensors follow it as bytes."""

PLATFORM = "tensorflow_savedmodel"
_DTYPES = {
    "FP32": "<f4",
    "FP64": "<f8",
    "FP16": "<f2",
    "UINT8": "u1",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT16": "<u2",
}
_DATATYPES = {np.dtype(dtype).name: datatype for datatype, dtype in _DTYPES.items()}
_DATATYPES |= {"bool": "BOOL", "object": "BYTES", "string": "BYTES"}
_BY_INPUT = {"image": "serving_default", "image_bytes": "serving_bytes"}


class ParsedRequest(NamedTuple):
    """A request, read."""

    query: Query
    id: str | None
    outputs: list[str]
    """The names that are wanted; all when there are none."""


def parse_request(
    body: bytes, json_length: str | None, signatures: Mapping[str, Signature], max_rows: int
) -> ParsedRequest:
    """Read the body of a request.

    Args:
        body: JSON, and after it the bytes of tensors.
        json_length: the header that says how many bytes of it are JSON, or None: all.
        signatures: of the model; the name of the input chooses one, or the parameter
            `signature_name` of the request.
        max_rows: the most images.

    Raises:
        Rejected: it is no such body, or does not fit the signature.
    """
    length = len(body) if json_length is None else _header_length(json_length)
    if length > len(body):
        raise Rejected(400, f"{BINARY_HEADER} is {length}, the body has {len(body)} bytes.")
    asked = json_object(body[:length], "`inputs`")
    tensor = _only_input(asked)
    signature = _signature(asked, tensor, signatures)
    check_shape(signature, tensor["shape"], max_rows)
    values = _values(tensor, signature, body[length:])
    identifier, outputs = asked.get("id"), asked.get("outputs", [])
    if not isinstance(identifier, str | None):
        raise Rejected(400, f"`id` must be a string. Received: {shown(identifier)}")
    return ParsedRequest(query_of(signature, values, max_rows), identifier, _names(outputs))


def _names(outputs: Any) -> list[str]:
    """Return the names of the outputs that are wanted."""
    listed = outputs or []
    names = [one.get("name") if isinstance(one, dict) else None for one in listed]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in names):
        raise Rejected(400, "`outputs` must be a list of tensors, each with its `name`.")
    return [str(name) for name in names]


def _header_length(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER):
        raise Rejected(400, f"{BINARY_HEADER} must be a number. Received: {shown(text)}")
    return int(text)


def _only_input(asked: Mapping[str, Any]) -> dict[str, Any]:
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Rejected(400, "`inputs` must be a list of one tensor, 'image' or 'image_bytes'.")
    tensor: dict[str, Any] = inputs[0]
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise Rejected(400, f"`shape` must be a list of lengths. Received: {shown(shape)}")
    return tensor


def _signature(
    asked: Mapping[str, Any], tensor: Mapping[str, Any], signatures: Mapping[str, Signature]
) -> Signature:
    parameters = asked.get("parameters")
    chosen = parameters.get("signature_name") if isinstance(parameters, dict) else None
    given = tensor.get("name")
    name = chosen or (_BY_INPUT.get(given) if isinstance(given, str) else None)
    if not isinstance(name, str) or name not in signatures:
        raise Rejected(
            400,
            "The input must be named 'image' or 'image_bytes', or the parameter `signature_name` "
            f"be one of {', '.join(signatures)}. Received: {shown(chosen or given)}",
        )
    if given != signatures[name].input:
        raise Rejected(
            400,
            f"The signature {name!r} takes {signatures[name].input!r}. Received: {shown(given)}",
        )
    return signatures[name]


def _values(tensor: Mapping[str, Any], signature: Signature, rest: bytes) -> Any:
    datatype, parameters = tensor.get("datatype"), tensor.get("parameters")
    known = ["BYTES"] if signature.takes_bytes else list(_DTYPES)
    if not isinstance(datatype, str) or datatype not in known:
        raise Rejected(
            400,
            f"The datatype of {signature.input!r} must be {', '.join(known)}. Received: "
            f"{shown(datatype)}",
        )
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        return _binary(tensor["shape"], datatype, rest, size)
    data, shape = tensor.get("data"), tensor["shape"]
    if signature.takes_bytes:
        values = [data] if isinstance(data, str) else data
        if not isinstance(values, list) or len(values) != math.prod(shape):
            raise Rejected(400, f"`data` must hold {math.prod(shape)} base64 strings.")
        return values
    try:
        return numbers(data).reshape(shape)
    except ValueError as error:
        raise Rejected(400, f"`data` does not fill the shape {shape}.") from error


def _binary(shape: list[int], datatype: str, rest: bytes, size: Any) -> Any:
    if type(size) is not int or size != len(rest):
        raise Rejected(
            400, f"`binary_data_size` is {shown(size)}, {len(rest)} bytes follow the JSON."
        )
    if datatype == "BYTES":
        return _length_prefixed(rest, math.prod(shape))
    try:
        return np.frombuffer(rest, _DTYPES[datatype]).reshape(shape)
    except ValueError as error:
        raise Rejected(400, f"{size} bytes do not fill the shape {shape}.") from error


def _length_prefixed(rest: bytes, count: int) -> list[bytes]:
    values: list[bytes] = []
    at = 0
    while at < len(rest) and len(values) <= count:
        if at + 4 > len(rest):
            raise Rejected(400, "A BYTES tensor ends inside a length.")
        (length,) = struct.unpack_from("<I", rest, at)
        values.append(rest[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(rest) or len(values) != count:
        raise Rejected(400, f"The BYTES tensor must contain {count} lengths, each with its bytes.")
    return values


def format_response(
    asked: ParsedRequest, name: str, version: int, outputs: Outputs
) -> dict[str, object]:
    """Return the body of the answer.

    Raises:
        Rejected: an output is wanted that there is not.
    """
    unknown = [wanted for wanted in asked.outputs if wanted not in outputs]
    if unknown:
        raise Rejected(400, f"There is no output {shown(unknown[0])}, only {', '.join(outputs)}.")
    chosen = asked.outputs or list(outputs)
    answer = {"model_name": name, "model_version": str(version)}
    if asked.id is not None:
        answer["id"] = asked.id
    tensors = [
        {
            "name": one,
            "shape": list(outputs[one].shape),
            "datatype": _DATATYPES[outputs[one].dtype.name],
            "data": texts(outputs[one].ravel()),
        }
        for one in chosen
    ]
    return {**answer, "outputs": tensors}


def metadata(
    name: str, version: int, signatures: Sequence[Signature], outputs: Mapping[str, Any]
) -> dict[str, object]:
    """Return the metadata of a model, whose `outputs` are a dtype and a shape by name."""
    return {
        "name": name,
        "versions": [str(version)],
        "platform": PLATFORM,
        "inputs": [
            {"name": s.input, "datatype": _DATATYPES[s.dtype], "shape": [-1, *s.shape]}
            for s in signatures
        ],
        "outputs": [
            {"name": one, "datatype": _DATATYPES[dtype], "shape": shape}
            for one, (dtype, shape) in outputs.items()
        ],
    }
