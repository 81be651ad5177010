"""The HTTP application over a version that needs no TensorFlow."""

import base64
import io
import threading
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs kerastl[serve]")
pytest.importorskip("httpx2", reason="the test client needs httpx2")
pytest.importorskip("prometheus_client", reason="needs kerastl[serve]")

from starlette.testclient import TestClient

from kerastl.serving.query import Signature
from kerastl.serving.server import make_app
from kerastl.serving.service import ServerLimits, Service

SIGNATURES = {
    "serving_default": Signature("serving_default", "image", "float32", (1, 1, 3)),
    "serving_bytes": Signature("serving_bytes", "image_bytes", "string", ()),
}


class Lengths:
    """A version whose label of an encoded image is its length; what begins with "bad" is none."""

    signatures = SIGNATURES
    signature_proto: ClassVar = {}
    output_specs: ClassVar = {"label": ("string", [-1])}

    def __init__(self, number=1):
        self.number = number
        self.go = threading.Event()
        self.go.set()
        self.begun = []

    def run(self, signature, rows):
        self.begun.append(len(rows))
        assert self.go.wait(10)
        if signature == "serving_default":
            if (rows == 13).any():
                raise RuntimeError("a bug")
            return {"label": np.array([b"pixels"] * len(rows), object)}
        return {
            "label": np.array([str(len(row)).encode() for row in rows], object),
            "valid": np.array([not row.startswith(b"bad") for row in rows]),
        }


class Repository:
    def __init__(self):
        self.served = Lengths()
        self.next = None

    def refresh(self):
        if self.next is None:
            return False
        self.served, self.next = self.next, None
        return True


def client_of(repository=None, poll_seconds=60.0, **limits):
    service = Service("m", repository or Repository(), ServerLimits(**limits))
    app = make_app(service, poll_seconds=poll_seconds)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client():
    with client_of(body_bytes=10_000, rows=4) as client:
        yield client


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def v1(client, *files, path="/v1/models/m:predict", **rest):
    instances = [b64(file) for file in files]
    body = {"signature_name": "serving_bytes", "instances": instances, **rest}
    return client.post(path, json=body)


def v2(client, *files, path="/v2/models/m/infer"):
    data = [base64.b64encode(file).decode() for file in files]
    tensor = {"name": "image_bytes", "shape": [len(files)], "datatype": "BYTES", "data": data}
    return client.post(path, json={"id": "a", "inputs": [tensor]})


def test_both_dialects(client):
    answer = v1(client, b"abc", b"defg")
    assert answer.status_code == 200
    assert answer.json() == {
        "predictions": [{"label": "3", "valid": True}, {"label": "4", "valid": True}]
    }
    assert answer.headers["x-model-version"] == "1"
    answer = v2(client, b"abc", path="/v2/models/m/versions/1/infer").json()
    assert (answer["id"], answer["model_version"]) == ("a", "1")
    assert answer["outputs"][0]["data"] == ["3"]


def test_binary_tensors(client):
    import json

    content = b"\x03\0\0\0abc"
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(content)}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = client.post("/v2/models/m/infer", content=text + content, headers=headers)
    assert answer.json()["outputs"][0]["data"] == ["3"]
    headers["Inference-Header-Content-Length"] = "x"
    answer = client.post("/v2/models/m/infer", content=text + content, headers=headers)
    assert (answer.status_code, "must be a number" in answer.text) == (400, True)


def test_what_can_be_asked_of_the_model(client):
    status = client.get("/v1/models/m").json()["model_version_status"][0]
    assert (status["version"], status["state"]) == ("1", "AVAILABLE")
    assert client.get("/v1/models/m/metadata").json()["model_spec"]["version"] == "1"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2"):
        assert client.get(path).status_code == 200
    assert client.get("/v2/models/m").json()["inputs"][1]["name"] == "image_bytes"


@pytest.mark.parametrize("send", [v1, v2])
def test_a_bad_image_is_400_with_its_reason(client, send):
    answer = send(client, b"abc", b"bad", b"bad<html>")
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "2 of 3 images are bad: image 1: not a known image format; "
        "image 2: not a known image format"
    )


def test_an_unknown_model_or_version_is_404(client):
    assert "The model served here is 'm'" in v1(client, b"a", path="/v1/models/n:predict").text
    answer = v1(client, b"a", path="/v1/models/m/versions/2:predict")
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "Version 1 is served. Received: version 2",
    )
    for path in ("/v1/models/m:classify", "/v2/models/n/infer", "/v2/models/m/versions/9/infer"):
        assert client.post(path, json={}).status_code == 404
    assert client.get("/v2/models/n/ready").status_code == 404
    assert client.get("/nothing").status_code == 404
    assert client.get("/v1/models/m:predict").status_code == 404


def test_bodies_are_bounded(client):
    answer = v1(client, b"a" * 10_000)
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "A request can have at most 10,000 bytes.",
    )
    assert v1(client, *[b"a"] * 5).status_code == 413
    assert client.post("/v1/models/m:predict", content=b"{").status_code == 400


def test_a_bug_is_500_and_the_server_lives_on(client):
    answer = client.post("/v1/models/m:predict", json={"instances": [[[[13, 0, 0]]]]})
    assert answer.status_code == 500
    answer = client.post("/v1/models/m:predict", json={"instances": [[[[1, 0, 0]]]]})
    assert answer.json() == {"predictions": ["pixels"]}


def test_what_takes_too_long_is_504_and_a_full_queue_503():
    repository = Repository()
    repository.served.go.clear()
    with client_of(repository, seconds=0.2, queue_rows=1) as client:
        assert "no answer within 0.2 s" in v1(client, b"a").json()["error"]
        answers = [v1(client, b"a") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [504, 503, 503]
        assert answers[2].headers["retry-after"] == "1"
        repository.served.go.set()


def test_a_new_version_is_picked_up():
    import time

    repository = Repository()
    with client_of(repository, poll_seconds=0.02) as client:
        assert v1(client, b"a").headers["x-model-version"] == "1"
        repository.next = Lengths(2)
        end = time.monotonic() + 10
        while v1(client, b"a").headers["x-model-version"] != "2":
            assert time.monotonic() < end


def test_metrics_count_what_was_answered():
    with client_of() as client:
        v1(client, b"abc")
        v2(client, b"abc")
        v2(client, b"bad")
        text = client.get("/metrics").text
    assert 'kerastl_requests_total{protocol="v1",status="200"} 1.0' in text
    assert 'kerastl_requests_total{protocol="v2",status="400"} 1.0' in text
    assert "kerastl_bad_images_total 1.0" in text
    assert "kerastl_batch_rows_count 3.0" in text
    assert "kerastl_model_version 1.0" in text


DEEP = "[" * 900 + "]" * 900
PIXELS = '{"name": "image", "shape": [1, 1, 1, 3], "datatype": "FP32", "data": [1, 2, 3]'


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/m/infer", f'{{"id": "\\ud800", "inputs": [{PIXELS}}}]}}', 200),
        ("/v2/models/m/infer", f'{{"id": {DEEP}, "inputs": [{PIXELS}}}]}}', 400),
        ("/v2/models/m/infer", f'{{"inputs": [{PIXELS}}}], "outputs": [{{"name": {DEEP}}}]}}', 400),
        ("/v2/models/m/infer", f'{{"inputs": [{PIXELS}}}], "outputs": {{"name": "x"}}}}', 400),
        ("/v2/models/m/infer", '{"inputs": [{"name": "\\ud800", "shape": [1]}]}', 400),
        ("/v2/models/m/infer", PIXELS.join(['{"inputs": [', ', "shape": [1e400]}]}']), 400),
        ("/v2/models/m/infer", '{"inputs": NaN}', 400),
        ("/v1/models/m:predict", '{"instances": [[[[NaN, 0, 0]]]]}', 400),
        ("/v1/models/m:predict", '{"instances": [[[[1e999, 0, 0]]]]}', 400),
        ("/v1/models/m:predict", f'{{"instances": {DEEP}}}', 400),
        ("/v1/models/m:predict", f'{{"signature_name": {DEEP}, "instances": [1]}}', 400),
        ("/v1/models/m:predict", '{"instances": [{"\\ud800": 1}]}', 400),
        ("/v1/models/m/versions/" + "9" * 5000 + ":predict", "{}", 404),
        ("/v2/models/m/versions/" + "9" * 5000 + "/infer", "{}", 404),
        ("/v2/models/m/versions/-1/infer", "{}", 404),
        ("/v2/models/m/versions/%C2%B2/infer", "{}", 404),
    ],
)
def test_malformed_requests_are_told_so(client, path, body, status):
    answer = client.post(path, content=body.encode())
    assert answer.status_code == status
    assert status == 200 or 0 < len(answer.json()["error"]) < 500


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "", "\xb2", "1e3"])
def test_malformed_header_lengths_are_told_so(client, length):
    headers = {"Inference-Header-Content-Length": length.encode("latin-1")}
    answer = client.post("/v2/models/m/infer", content=b"{}", headers=headers)
    assert (answer.status_code, "must be a number" in answer.text) == (400, True)


def png(side):
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("send", [v1, v2])
def test_images_are_limited_by_what_they_cost(send):
    with client_of(pixels=10_000) as client:
        assert send(client, png(90)).status_code == 200
        for files in ([png(101)], [png(60)] * 3):
            answer = send(client, *files)
            assert answer.status_code == 413
            assert "can have at most 10,000 pixels" in answer.json()["error"]


def test_all_requests_together_are_bounded():
    with client_of(held_bytes=100) as client:
        answer = v1(client, b"a" * 200)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert v1(client, b"a" * 200).status_code == 503
    with client_of(held_bytes=1000) as client:
        assert [v1(client, b"a" * 100).status_code for _ in range(20)] == [200] * 20


def test_an_answer_that_is_no_number_is_no_answer(client):
    repository = Repository()
    repository.served.run = lambda signature, rows: {
        "probabilities": np.full((len(rows), 2), np.nan)
    }
    with client_of(repository) as client:
        for send in (v1, v2):
            answer = send(client, b"a")
            assert answer.status_code == 500
            assert answer.json() == {
                "error": "The model returned 'probabilities' with numbers that are not finite."
            }
