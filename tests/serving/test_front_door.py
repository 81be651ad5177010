"""The page of a server, image files as requests, and its interface as OpenAPI."""

import contextlib
import io
import re
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs kerastl[serve]")
pytest.importorskip("python_multipart", reason="needs kerastl[serve]")
pytest.importorskip("httpx2", reason="the test client needs httpx2")
pytest.importorskip("prometheus_client", reason="needs kerastl[serve]")

from starlette.testclient import TestClient

from kerastl._task import find_task
from kerastl.serving.query import Signature
from kerastl.serving.server import make_app
from kerastl.serving.service import ServerLimits, Service
from tests.browsing import check_page, watched_page

NAMES = ["blue", "<b>red</b>"]


class Redness:
    """A version that tells how red an encoded image is."""

    number, class_names, signature_proto = 3, NAMES, {}
    output_specs = {"probabilities": ("float32", [-1, 2])}  # noqa: RUF012
    signatures = {  # noqa: RUF012
        "serving_default": Signature("serving_default", "image", "float32", (1, 1, 3)),
        "serving_bytes": Signature("serving_bytes", "image_bytes", "string", ()),
    }

    def __init__(self, task="classification"):
        self.task = find_task(task)
        self.answer = self.task.served_output

    def run(self, signature, rows):
        valid = np.array([row[1:4] == b"PNG" for row in rows])
        rows = [row if is_png else RED for row, is_png in zip(rows, valid, strict=True)]
        pixels = [np.asarray(Image.open(io.BytesIO(row)).convert("RGB")) / 255 for row in rows]
        red = np.array([one[..., 0].mean() - one[..., 2].mean() / 2 for one in pixels])
        return {self.answer: np.stack([1 - red, red], 1).astype("float32"), "valid": valid}


class Repository:
    def __init__(self, task="classification"):
        self.served = Redness(task)

    def refresh(self):
        return False


def client_of(task="classification"):
    return TestClient(make_app(Service("m", Repository(task), ServerLimits(rows=3))))


@pytest.fixture(scope="module")
def client():
    with client_of() as found:
        yield found


def png(*color):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "PNG")
    return file.getvalue()


RED, BLUE = png(255, 0, 0), png(0, 0, 255)


def told(label, probability):
    return {"label": label, "probability": pytest.approx(probability)}


def test_a_file_is_the_body(client):
    answer = client.post("/predict", content=RED)
    assert answer.json() == {"predictions": [{"path": None, "classes": [told(NAMES[1], 1.0)]}]}
    assert answer.headers["x-model-version"] == "3"


def test_files_of_a_form_keep_their_names(client):
    files = [("file", ("é.png", RED)), ("other", ("b.png", png(51, 0, 0)))]
    answer = client.post("/predict?top=2", files=files).json()["predictions"]
    assert answer == [
        {"path": "é.png", "classes": [told(NAMES[1], 1.0), told("blue", 0.0)]},
        {"path": "b.png", "classes": [told("blue", 0.8), told(NAMES[1], 0.2)]},
    ]


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("multi_label", {"labels": [told(NAMES[1], 1.0)]}),
        ("regression", {"values": [
            {"target": "blue", "value": 0.0}, {"target": NAMES[1], "value": 1.0}
        ]}),
    ],
)  # fmt: skip
def test_every_task_answers_as_predict_does(task, rows):
    with client_of(task) as found:
        assert found.post("/predict", content=RED).json()["predictions"] == [{"path": None, **rows}]


FORM = {"content-type": "multipart/form-data; boundary=xx"}


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ({"content": b""}, 400, "The request has no image"),
        ({"content": b"file=x"}, 400, "not a known image format"),
        ({"content": b"--xx\r\nA: b\r\n\r\n\r\n--xx--", "headers": FORM}, 400, "Cannot read the"),
        ({"content": RED, "headers": {"content-type": "multipart/form-data"}}, 400, "No boundary"),
        ({"content": RED, "headers": FORM}, 400, "Cannot read the form"),
        ({"files": [("file", ("a", RED))], "data": {"x": "1"}}, 400, "only image files.*'x'"),
        ({"files": [("file", ("a", RED))] * 4}, 413, "At most 3 images"),
        ({"content": RED, "params": {"top": "0"}}, 400, "`top` must be"),
        ({"content": RED, "params": {"top": "٣"}}, 400, "`top` must be"),
    ],
)
def test_what_is_no_image_file_is_told(how, status, reason):
    with client_of() as found:
        answer = found.post("/predict", **how)
    assert answer.status_code == status
    assert re.search(reason, answer.json()["error"])


def test_the_interface_as_openapi(client):
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    for path, methods in found["paths"].items():
        for method in methods:
            answer = client.request(method, path)
            assert answer.status_code != 404, path
            assert answer.status_code != 405, path
    page = client.get("/docs").text
    assert all(path in page for path in found["paths"])
    assert "curl -F file=@image.jpg http://testserver/predict" in page


@contextlib.contextmanager
def served():
    """Serve in a thread; give the address."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = make_app(Service("m", Repository()))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(browser, scheme, width):
    with watched_page(browser, width, scheme) as (page, errors, asked):
        half = Image.new("RGB", (60, 60))
        half.paste((255, 0, 0), (0, 0, 40, 60))  # red on the left
        file = io.BytesIO()
        half.save(file, "PNG")
        with served() as address:
            page.goto(address)
            image = {"name": "half.png", "mimeType": "image/png", "buffer": file.getvalue()}
            page.set_input_files("#file", image)
            page.wait_for_selector("#result:not([hidden])")
            assert page.locator("#rows tr").all_inner_texts() == [
                "<b>red</b>\t0.667",
                "blue\t0.333",
            ]
            page.click("#look")
            page.wait_for_selector("#where:not([hidden])")
            assert re.search(r"lowers .* by up to 0\.0", page.inner_text("#legend"))
            row = page.evaluate(
                "[...document.querySelector('#map').getContext('2d')"
                ".getImageData(0, 30, 60, 1).data]"
            )
            left, right = row[4 * 5 : 4 * 5 + 3], row[4 * 55 : 4 * 55 + 3]
            assert (left, right) == ([255, 26, 0], [0, 0, 0])  # red is covered with red
            check_page(page, width)
            page.set_input_files("#file", {**image, "buffer": b"no image"})
            page.locator("#status", has_text="No answer").wait_for()
            page.goto(f"{address}/docs")
            check_page(page, width)
        assert [text for text in errors if "400" not in text] == []  # Chromium tells of that itself
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)
