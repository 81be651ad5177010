"""The REST dialect of TensorFlow Serving: https://www.tensorflow.org/tfx/serving/api_rest."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict

from kerastl.serving.query import (
    Outputs,
    Query,
    Rejected,
    Signature,
    check_count,
    json_object,
    query_of,
    shown,
    signature_named,
    texts,
    version_number,
)

_TARGET = re.compile(r"(?P<name>[^/:]+)(/versions/(?P<version>[^/:]+))?:(?P<verb>\w+)")


class ParsedRequest(NamedTuple):
    """A request, read."""

    query: Query
    by_row: bool
    """Whether the answer is a list of rows, or of columns."""


def target_of(path: str) -> tuple[str, int | None]:
    """Return the model and the version, if any, of a path below `/v1/models/`.

    Raises:
        Rejected: the path asks for something else than `:predict`.
    """
    match = _TARGET.fullmatch(path)
    if match is None or match["verb"] != "predict":
        raise Rejected(404, f"The only method is NAME:predict. Received: {shown(path)}")
    return match["name"], None if match["version"] is None else version_number(match["version"])


def parse_request(body: bytes, signatures: Mapping[str, Signature], max_rows: int) -> ParsedRequest:
    """Read the body of a request: `instances` (rows) or `inputs` (columns).

    Raises:
        Rejected: it is no such body, or does not fit the signature.
    """
    asked = json_object(body, "`instances` or `inputs`")
    by_row = "instances" in asked
    if by_row == ("inputs" in asked):
        raise Rejected(400, "The body must hold either `instances` or `inputs`.")
    holds_files = _holds_files(asked.get("instances", asked.get("inputs")))
    name = asked.get("signature_name") or ("serving_bytes" if holds_files else None)
    signature = signature_named(name, signatures)
    if by_row:
        rows = asked["instances"]
        if isinstance(rows, list):
            check_count(len(rows), max_rows)
            rows = [_unwrapped(signature, _named(signature, row, "An instance")) for row in rows]
    else:
        rows = _named(signature, asked["inputs"], "`inputs`")
        if isinstance(rows, list):
            check_count(len(rows), max_rows)
            rows = [_unwrapped(signature, row) for row in rows]
    return ParsedRequest(query_of(signature, rows, max_rows), by_row)


def _holds_files(values: Any) -> bool:
    """Whether the first of nested values, or of those by name, is `{"b64": ...}`."""
    while isinstance(values, list | dict) and values:
        if isinstance(values, dict) and "b64" in values:
            return True
        values = values[0] if isinstance(values, list) else next(iter(values.values()))
    return False


def _named(signature: Signature, value: Any, what: str) -> Any:
    """Return the value of the input, if it is given by name."""
    if not isinstance(value, dict) or "b64" in value:
        return value
    if set(value) != {signature.input}:
        raise Rejected(
            400, f"{what} must contain only {signature.input!r}. Received: {shown(list(value))}"
        )
    return value[signature.input]


def _unwrapped(signature: Signature, row: Any) -> Any:
    """Return the text in `{"b64": ...}`; other text is not an encoded image."""
    if isinstance(row, dict) and set(row) == {"b64"}:
        if not signature.takes_bytes:
            raise Rejected(
                400,
                f"The signature {signature.name!r} takes pixels. For encoded images, send "
                '"signature_name": "serving_bytes".',
            )
        return row["b64"]
    if signature.takes_bytes:
        raise Rejected(
            400, f'An encoded image is {{"b64": TEXT}}, the file in base64. Received: {shown(row)}'
        )
    return row


def format_response(asked: ParsedRequest, outputs: Outputs) -> dict[str, object]:
    """Return the body of the answer."""
    columns = {name: texts(values) for name, values in outputs.items()}
    if not asked.by_row:
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def status(version: int) -> dict[str, object]:
    """Return the status of a model of which one version is served."""
    fine = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [{"version": str(version), "state": "AVAILABLE", "status": fine}]
    }


def metadata(name: str, version: int, signature_proto: Mapping[str, Any]) -> dict[str, object]:
    """Return the metadata of a model: its signatures, as the SavedModel describes them."""
    signature_def = {
        one: MessageToDict(value, preserving_proto_field_name=True)
        for one, value in signature_proto.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signature_def}},
    }
