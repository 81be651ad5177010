"""Requests and connections that no good client makes: a hundred kinds, and what each may get.

Loopback only, and bounded: each is sent once, and what it waits for has a limit.
"""

import base64
import contextlib
import io
import json
import math
import random
import socket
import struct

from PIL import Image

from kerastl.serving.cost import TRANSPARENT
from kerastl.serving.service import ServerLimits

V1, V2 = "/v1/models/insects:predict", "/v2/models/insects/infer"
SECONDS = 20  # after which a connection is given up


def encoded(size=(9, 9), kind="PNG", mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def b64(data):
    return base64.b64encode(data).decode()


def post(path, body, *headers):
    body = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    head = [f"POST {path} HTTP/1.1", "Host: m", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def v1(instances, **rest):
    return post(V1, json.dumps({"instances": instances, **rest}))


def images(*files):
    return v1([{"b64": b64(file)} for file in files], signature_name="serving_bytes")


def form(*parts, kind="multipart/form-data; boundary=xx"):
    body = b"".join(b"--xx\r\n" + part + b"\r\n" for part in parts) + b"--xx--\r\n"
    return post("/predict", body, f"Content-Type: {kind}")


def part(content, disposition=b'form-data; name="file"; filename="x.png"'):
    return b"Content-Disposition: " + disposition + b"\r\n\r\n" + content


def v2(tensor, **rest):
    return post(V2, json.dumps({"inputs": [tensor], **rest}))


def binary(content, shape, datatype="FP32", length=None, **parameters):
    tensor = {"name": "image_bytes" if datatype == "BYTES" else "image", "shape": shape}
    tensor |= {"datatype": datatype, "parameters": {"binary_data_size": len(content), **parameters}}
    text = json.dumps({"inputs": [tensor]}).encode()
    length = len(text) if length is None else length
    return post(V2, text + content, f"Inference-Header-Content-Length: {length}")


def scans(count):
    data = encoded((600, 600), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


PIXEL = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "FP32"}
FILE = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
DEEP = "[" * 3000 + "]" * 3000
HUGE = "9" * 5000
GOOD = images(encoded((40, 30)))
MOST = ServerLimits().pixels
BOMB = encoded((math.isqrt(MOST),) * 2, mode="1")  # the largest that is decoded
GLASS = encoded((math.isqrt(MOST // TRANSPARENT),) * 2, mode="RGBA")

KINDS = {
    **{f"json {text[:12]!a}": post(V1, text) for text in (
        "", "{", "null", "[]", "1", '"x"', "{}", '{"instances": 1}', DEEP, '{"a":' * 900, "\ud800",
        '{"instances": NaN}', '{"instances": [1e999]}', f'{{"instances": [{HUGE}]}}', "\0" * 99,
        '{"instances": []}', '{"inputs": {}}', '{"inputs": {"image": 1}}',
        f'{{"instances": {DEEP}}}',
        '{"instances": [{}], "inputs": []}', '{"instances": [{"b64": "AA=="}]}',
        '{"instances": [{"b64": 1}], "signature_name": "serving_bytes"}',
        '{"instances": [{"b64": "\\ud800"}], "signature_name": "serving_bytes"}',
        f'{{"signature_name": {DEEP[1000:-1000]}, "instances": [1]}}',
        '{"signature_name": "\\ud800", "instances": [1]}',
    )},
    **{f"v2 {text[:24]!a}": post(V2, text) for text in (
        "{}", '{"inputs": []}', '{"inputs": [1]}', '{"inputs": [{}, {}]}',
        '{"inputs": [{"name": []}]}',
        '{"inputs": [{"shape": [1e400]}]}', f'{{"inputs": [{{"shape": [{HUGE}]}}]}}',
        f'{{"id": {DEEP[2500:-2500]}, "inputs": [{{"shape": []}}]}}',
    )},
    "half a surrogate as id": v2({**FILE, "data": [b64(b"x")]}, id="\ud800"),
    "id of a list": v2({**FILE, "data": [b64(b"x")]}, id=[1]),
    "outputs that are none": v2({**FILE, "data": [b64(encoded())]}, outputs=[{"name": "x" * 9999}]),
    "outputs of a dict": v2({**FILE, "data": [b64(encoded())]}, outputs={"name": 1}),
    "shape of gigabytes": v2({**PIXEL, "shape": [2**40, 32, 32, 3], "data": [1]}),
    "shape beyond 64 bits": v2({**PIXEL, "shape": [2**200], "data": [1]}),
    "shape of zeros": v2({**PIXEL, "shape": [0, 32, 32, 3], "data": []}),
    "shape of a million": v2({**PIXEL, "shape": [1] * 10**6, "data": [1]}),
    "negative shape": v2({**PIXEL, "shape": [-1, 32, 32, 3], "data": [1]}),
    "data of texts": v2({**PIXEL, "data": ["x" * 10**5] * 20}),
    "data of dicts": v2({**PIXEL, "data": [{}] * 10**5}),
    "datatype of a list": v2({**PIXEL, "datatype": [], "data": []}),
    "unknown datatype": v2({**PIXEL, "datatype": "COMPLEX", "data": [1]}),
    "too many rows": v2({**FILE, "shape": [300], "data": [b64(b"x")] * 300}),
    "wrong name": v2({**FILE, "name": "x" * 10**5, "data": []}),
    "binary of gigabytes": binary(b"1234", [2**28, 32, 32, 3]),
    "binary that is short": binary(b"1234", [1, 32, 32, 3]),
    "binary size that lies": binary(b"1234", [1], "BYTES", binary_data_size=2**40),
    "binary size of a text": binary(b"1234", [1], "BYTES", binary_data_size="4"),
    "binary lengths that lie": binary(b"\xff\xff\xff\xff", [1], "BYTES"),
    "binary of nothing": binary(bytes(4 * 10**5), [10**5], "BYTES"),
    **{f"header length {text[:9]}": binary(b"", [1], "BYTES", text) for text in
       ("-1", "x", HUGE, "1" * 18, "", "1e3", "\xb2", "0")},
    **{f"pixels of {number}": v1([[[[number] * 3] * 32] * 32]) for number in
       (256.5, -3, 1e30, 1e300, 2**70, True, None, "7", "x", {}, [])},
    "pixels of NaN as bytes": binary(struct.pack("<f", float("nan")) * 3072, [1, 32, 32, 3]),
    "pixels of infinity as bytes": binary(struct.pack("<f", float("inf")) * 3072, [1, 32, 32, 3]),
    "ragged pixels": v1([[[[1, 2, 3]] * 32] * 31 + [[[1]]]]),
    **{f"image {name}": images(data) for name, data in {
        "empty": b"", "html": b"<html>", "cut": encoded()[:-20], "bomb": BOMB, "zip": b"PK\3\4" * 9,
        "too large": encoded((9400, 9400), mode="1"),
        "tiff": encoded(kind="TIFF"), "checksum": encoded().replace(b"IDAT", b"IDAT\0"),
        "scans": scans(3000), "fill": b"\xff\xd8" + b"\xff" * 10**6,
        "parts": b"\xff\xd8" + b"\xff\xe1\0\2" * 200_000,
        "gif": b"GIF89a\1\0\1\0\0\0\0" + b"\x2c\0\0\0\0\xff\xff\xff\xff\0\2\0" * 900,
        "blocks": b"GIF89a\1\0\1\0\0\0\0\x21\xf9" + b"\1\0" * 10**6,
        "bmp": b"BM" + bytes(16) + struct.pack("<ii", 2**31 - 1, -(2**31)) + bytes(40),
        "webp": b"RIFF\0\0\0\0WEBPVP8X" + b"\xff" * 40,
    }.items()},
    **{f"file {name}": post("/predict", data) for name, data in {
        "empty": b"", "html": b"<html>", "bomb": BOMB, "as the shell sends it": b"file=x",
    }.items()},
    "top of thousands of digits": post(f"/predict?top={HUGE}", encoded()),
    "form without boundary": form(part(encoded()), kind="multipart/form-data"),
    "form of another boundary": form(part(encoded()), kind="multipart/form-data; boundary=yy"),
    "form of fields": form(*[part(b"x", b'form-data; name="x"')] * 20_000),
    "form of 300 images": form(*[part(encoded())] * 300),
    "form of bombs": form(*[part(BOMB)] * 20),
    "form of headers": form(b"A: b\r\n" * 100_000),
    "form of a name in Latin-1": form(part(b"", b'form-data; name="f"; filename="\xe9\0"')),
    "form of base64": form(b"Content-Transfer-Encoding: base64\r\n" + part(b"!!!")),
    "form of no name": form(part(b"x", b"attachment")),
    "256 bombs": images(*[BOMB] * 256),
    "300 images": images(*[encoded()] * 300),
    **{f"path {path[:24]}": post(path, "{}") for path in (
        f"/v1/models/insects/versions/{HUGE}:predict", f"/v2/models/insects/versions/{HUGE}/infer",
        "/v2/models/insects/versions/%C2%B2/infer", "/v1/models/%ED%A0%80:predict", "*", "//",
        "/v1/models/insects:classify", "/v2/models/x/infer", "/v1/models/" + "x" * 9000, "/%00",
        "/../../etc/passwd", "http://x/" + V1, "/v1/models/:predict",
    )},
    **{f"http {text[:20]!a}": text for text in (
        b"\0" * 99, b"\x16\x03\x01\x02\x00" + bytes(99), b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX" + b"x" * 10**5, b"GET /" + b"x" * 10**5,
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 10**5,
        b"POST / HTTP/1.1\r\nContent-Length: " + HUGE.encode() + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000,
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n" * 50,
    )},
}  # fmt: skip
"""What is sent, by what it is."""


def ask(port, content):
    """Send bytes; return the status of the first answer, or None where there is none.

    To half a request there is none before the server's deadline, which is not waited for.
    """
    is_whole = content.startswith((b"POST /v", b"POST /predict"))
    with socket.create_connection(("127.0.0.1", port), SECONDS if is_whole else 0.3) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
        answer = b""
        with contextlib.suppress(ConnectionError, *([] if is_whole else [TimeoutError])):
            while b"\r\n" not in answer and (part := connection.recv(4096)):
                answer += part
    first = answer.split(b"\r\n")[0].split()
    return int(first[1]) if len(first) > 1 else None


def mutated(count, seed=0):
    """Yield names and requests: each kind, and then kinds with bytes changed behind the head."""
    rng, names = random.Random(seed), list(KINDS)
    for number in range(count):
        name = names[number % len(names)]
        content = KINDS[name]
        if number >= len(names):
            start = content.find(b"\r\n\r\n") + 4 if content.startswith(b"POST /v") else 0
            changed = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                if len(changed) > start:
                    changed[rng.randrange(start, len(changed))] = rng.choice(b'\0\xff{}[]",:-9e')
            content = bytes(changed)
        yield name, content
