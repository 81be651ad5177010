"""A page for people, requests with plain image files, and OpenAPI."""

import html
import importlib.metadata
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers
from starlette.responses import FileResponse, HTMLResponse, Response

from kerastl.serving.query import Outputs, Query, Rejected, Signature, check_count, query_of, shown

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what it says is in the answer
_FOLDER = Path(__file__).with_name("front")
FILES = {"/": "index.html", "/front.css": "front.css", "/front.js": "front.js"}
"""The files of the page, by their path on the server."""
_HEADERS = {
    # Nothing but what this server sends is loaded or run.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class ParsedFiles(NamedTuple):
    """Image files of a request, read."""

    query: Query
    names: list[str | None]
    """Of the files; None where the body is the file."""


def page_file(path: str) -> Response:
    """Return a file of the page."""
    return FileResponse(_FOLDER / FILES[path], headers=_HEADERS)


def parse_files(
    headers: Headers, body: bytes, signatures: Mapping[str, Signature], max_rows: int
) -> ParsedFiles:
    """Read a body that is an image file, or a form with some (`multipart/form-data`).

    Raises:
        Rejected: it is an empty body, or no such form, or holds no file or too many.
    """
    files: list[tuple[str | None, bytes]] = [(None, body)] if body else []
    if (kind := headers.get("content-type", "")).startswith("multipart/form-data"):
        files = _files_of_form(kind, body, max_rows)
    if not files:
        raise Rejected(
            400, "The request has no image. Send the file as the body, or in a form as `file`."
        )
    names, contents = zip(*files, strict=True)
    return ParsedFiles(query_of(signatures["serving_bytes"], list(contents), max_rows), list(names))


def _files_of_form(kind: str, body: bytes, max_rows: int) -> list[tuple[str | None, bytes]]:
    """Return name and content of each file of a form, whose header says what parts it."""
    files: list[tuple[str | None, bytes]] = []

    def keep(part: Any) -> None:
        check_count(len(files) + 1, max_rows)
        part.file_object.seek(0)
        name = None if part.file_name is None else part.file_name.decode("utf-8", "replace")
        files.append((name, part.file_object.read()))
        part.close()

    def refuse(part: Any) -> None:
        raise Rejected(
            400,
            (f"A form can contain only image files. Received the field {shown(part.field_name)}."),
        )

    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}
    headers = {"Content-Type": kind.encode("latin-1")}
    try:
        parser = create_form_parser(headers, refuse, keep, in_memory)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Rejected(400, f"Cannot read the form: {error}") from error
    return files


def format_files(
    asked: ParsedFiles, outputs: Outputs, *, version: Any, top: int | None
) -> dict[str, object]:
    """Return what `kerastl predict --json` prints.

    Raises:
        Rejected: the model is no classifier and no regression.
    """
    if version.answer not in outputs:
        raise Rejected(
            404,
            f"The model answers {', '.join(outputs)}, not {version.answer}. Use /v1 or /v2.",
        )
    task, answers = version.task, version.task.told_answers(outputs)
    top = top if task.takes_top else None
    names = version.class_names or [str(number) for number in range(answers.shape[1])]
    return {
        "predictions": [
            {"path": name, task.told_as: task.describe_outputs(row, names, top)}
            for name, row in zip(asked.names, answers, strict=True)
        ]
    }


def openapi(name: str) -> dict[str, Any]:
    """Return the interface of a server as OpenAPI 3.1."""
    answer = {"200": {"description": "The answer."}, "400": {"description": "What is wrong."}}
    file = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"file": file["schema"]}}
    rows = {"instances": [{"b64": "IMAGE IN BASE64"}]}
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": ["IN BASE64"]}

    def operation(summary: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        body = {} if content is None else {"requestBody": {"required": True, "content": content}}
        return {"summary": summary, "responses": answer, **body}

    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": importlib.metadata.version("kerastl")},
        "paths": {
            "/predict": {
                "post": operation(
                    "Predict image files: one as the body, or several in a form; `?top=N` "
                    "returns N classes.",
                    {"image/*": file, "multipart/form-data": {"schema": form}},
                )
            },
            f"/v1/models/{name}:predict": {
                "post": operation(
                    "REST interface of TensorFlow Serving: encoded images or pixels.",
                    {"application/json": {"example": rows}},
                )
            },
            f"/v2/models/{name}/infer": {
                "post": operation(
                    "The open inference protocol (KServe, Triton).",
                    {"application/json": {"example": {"inputs": [tensor]}}},
                )
            },
            f"/v1/models/{name}": {"get": operation("The version that is served.")},
            f"/v1/models/{name}/metadata": {"get": operation("The signatures.")},
            f"/v2/models/{name}": {"get": operation("Inputs and outputs.")},
            "/v2/health/live": {"get": operation("Whether the server is running.")},
            "/v2/health/ready": {"get": operation("Whether it answers.")},
            "/metrics": {"get": operation("Prometheus' metrics.")},
        },
    }


def docs_page(name: str, address: str) -> Response:
    """Return the interface as a page."""
    parts = []
    for path, methods in openapi(name)["paths"].items():
        for method, one in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(one['summary'])}</p>")
            content = one.get("requestBody", {}).get("content", {})
            if (example := content.get("application/json", {}).get("example")) is not None:
                parts.append(f"<pre>{html.escape(json.dumps(example, indent=1))}</pre>")
    commands = "\n".join(
        html.escape(f"curl {option}@image.jpg {address}/predict")
        for option in ("--data-binary ", "-F file=")
    )
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>kerastl serve</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="front.css">'
        f"<main><h1>{html.escape(name)}</h1><pre>{commands}</pre>{''.join(parts)}"
        '<p><a href="openapi.json">OpenAPI</a>, <a href=".">the page to try it</a></p></main>',
        headers=_HEADERS,
    )
