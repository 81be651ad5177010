"""Connections over sockets: those that stall or send too much give way to the others."""

import contextlib
import json
import socket
import threading

import pytest

pytest.importorskip("starlette", reason="needs kerastl[serve]")
pytest.importorskip("uvicorn", reason="needs kerastl[serve]")
pytest.importorskip("prometheus_client", reason="needs kerastl[serve]")

import uvicorn

from kerastl.errors import ArgumentError
from kerastl.serving import connections, server
from kerastl.serving.server import make_app
from kerastl.serving.service import ServerLimits, Service
from tests.serving.test_server import Repository, b64

LIMITS = ServerLimits(connections=8, header_seconds=0.5, seconds=0.5, body_bytes=200_000)


@contextlib.contextmanager
def listening(limits, repository=None):
    """Serve in a thread; give the port."""
    service = Service("m", repository or Repository(), limits)
    config = uvicorn.Config(
        make_app(service), port=0, log_level="critical", http=connections.guarded(limits), ws="none"
    )
    running, ready = server._Server(config, lambda _: ready.set()), threading.Event()
    running.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=running.run)
    thread.start()
    assert ready.wait(20)
    try:
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port():
    with listening(LIMITS) as port:
        yield port


def connect(port, content=b""):
    found = socket.create_connection(("127.0.0.1", port), timeout=20)
    found.sendall(content)
    return found


def rest_of(found):
    """Read until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := found.recv(65_536):
            parts.append(part)
    return b"".join(parts)


BODY = json.dumps({"signature_name": "serving_bytes", "instances": [b64(b"abc")]}).encode()
POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\n"
GOOD = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def is_answered(port):
    with connect(port, GOOD) as found:
        return b'{"predictions":[{"label":"3","valid":true}]}' in rest_of(found)


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /v1", b""),
        (POST, b""),
        (POST + b"Content-Length: 100\r\n\r\n{", b"408"),
        (CHUNKED + b"5\r\nab", b"408"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 60_000, b"431"),
        (b"GET /" + b"x" * 300_000, b"431"),
        (CHUNKED + b"1;" + b"x" * 300_000, b"431"),
        (CHUNKED + b"1\r\nx\r\n" * 60_000, b"431"),
        (CHUNKED + b"0\r\n" + b"X: x\r\n" * 60_000, b""),
        (POST + b"Content-Length: 9" + b"9" * 400 + b"\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
    ],
)
def test_what_stalls_or_is_too_much_is_closed(port, sent, answer):
    with connect(port) as found:
        with contextlib.suppress(ConnectionError):
            found.sendall(sent)
        told = rest_of(found)
    assert answer in told.split(b"\r\n")[0]
    assert b"500" not in told.split(b"\r\n")[0]
    assert is_answered(port)


@pytest.mark.parametrize("sent", [b"", POST, POST + b"Content-Length: 100\r\n\r\n{"])
def test_those_that_keep_us_waiting_longest_give_way(port, sent):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connect(port, sent))
            assert is_answered(port)


def test_of_two_addresses_the_one_that_holds_more_gives_way():
    with listening(ServerLimits(connections=6, header_seconds=30)) as port:
        mine = socket.socket()
        mine.bind(("127.0.0.2", 0))
        mine.connect(("127.0.0.1", port))
        others = [connect(port) for _ in range(20)]
        mine.sendall(GOOD)
        assert b"200" in rest_of(mine)
        for each in (mine, *others):
            each.close()


def test_nobody_is_put_out_whose_request_is_at_work():
    repository = Repository()
    repository.served.go.clear()
    with listening(ServerLimits(connections=2, header_seconds=30), repository) as port:
        first, second = connect(port, GOOD), connect(port, GOOD)
        while len(repository.served.begun) < 1:
            pass
        threading.Event().wait(0.2)  # both are read
        with connect(port, GOOD) as third:
            assert b"503" in rest_of(third)
        repository.served.go.set()
        for each in (first, second):
            assert b"200" in rest_of(each)
            each.close()


def test_work_ends_when_the_client_goes():
    repository = Repository()
    repository.served.go.clear()
    with listening(ServerLimits(batch_rows=1), repository) as port:
        body = json.dumps({"signature_name": "serving_bytes", "instances": [b64(b"abc")] * 50})
        head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
        with connect(port, head + body.encode()):
            while len(repository.served.begun) < 1:
                pass
        threading.Event().wait(0.3)  # the server sees that it has gone
        repository.served.go.set()
        assert is_answered(port)
    assert len(repository.served.begun) < 5


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [("127.0.0.1", 8501, "127.0.0.1:8501"), ("::1", 80, "[::1]:80"), ("m", 1, "m:1")],
)
def test_addresses(host, port, text):
    assert connections.address(host, port) == text


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path, option):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = {"port": taken} if option == "--port" else {"port": 0, "grpc_port": taken}
        with pytest.raises(ArgumentError, match=f"`{option}` cannot be .*127.0.0.1:{taken}: Addr"):
            server.serve(tmp_path, **ports)
    with pytest.raises(ArgumentError, match="cannot listen on no.such.host:0"):
        server.serve(tmp_path, host="no.such.host", port=0)


def test_there_are_no_more_connections_than_files(monkeypatch):
    files = connections.resource
    monkeypatch.setattr(files, "getrlimit", lambda _: (256, 256))
    assert 50 < connections.connections_that_fit(1024) < 200
    monkeypatch.setattr(files, "getrlimit", lambda _: (65_536, 65_536))
    assert connections.connections_that_fit(1024) == 1024
