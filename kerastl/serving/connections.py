"""Closes connections that stall or send too much."""

import asyncio
import os
import resource
from collections import Counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kerastl.serving.service import ServerLimits

LARGEST_HEAD = 2**16
"""Bytes of the first line and the headers of a request, and of what stands between its chunks."""

_SLICE = 2**14  # bytes that are parsed before the sizes are looked at again
_SPARE_FILES = 32  # for models, sockets of other services, and the like
_SENDING = 10.0  # seconds for an answer to be taken
_UNAVAILABLE = "503 Service Unavailable"
_TOO_LARGE = "431 Request Header Fields Too Large"


def backlog() -> int:
    """Return how many connections may wait to be accepted, and are accepted at a time."""
    return min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)


def connections_that_fit(wanted: int) -> int:
    """Return as many connections as are wanted, or as this process may open files for."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    taken = len(os.listdir("/dev/fd")) + backlog() + _SPARE_FILES
    return max(1, min(wanted, files - taken))


def address(host: str, port: int) -> str:
    """Return a host and a port as they stand in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class GuardedProtocol(HttpToolsProtocol):
    """HTTP with deadlines for heads and answers, bounded heads, and room for who comes next.

    When all connections are taken, the one that has kept us waiting longest is closed: of those
    from the address that holds most, and those that never sent a whole request first.
    """

    most_connections: int
    header_seconds: float
    request_seconds: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; close another one where there are too many."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._was_answered = False
        self._deadline: asyncio.TimerHandle | None = None
        self._start_head()
        self._set_deadline(self.header_seconds)
        if len(self.connections) > self.most_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._set_deadline(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, as long as there is not too much of it beside the body."""
        if self._deadline is None:
            self._set_deadline(self.header_seconds)
        for start in range(0, len(data), _SLICE):
            piece = data[start : start + _SLICE]
            self._beside += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._beside > LARGEST_HEAD + self._body:
                self._refuse(_TOO_LARGE)
                return

    def on_headers_complete(self) -> None:
        """Start the request, which has a deadline of its own."""
        super().on_headers_complete()
        self._set_deadline(self.request_seconds)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._beside -= len(body)
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next head."""
        self._start_head()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, which uvicorn has a deadline for."""
        self._was_answered, self._since = True, self.loop.time()
        self._set_deadline(self.request_seconds if self.pipeline else None)
        super().on_response_complete()

    def _start_head(self) -> None:
        self._beside = self._body = 0

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        abort = self.transport.abort
        self._deadline = None if seconds is None else self.loop.call_later(seconds, abort)

    @property
    def _keeps_us_waiting(self) -> bool:
        """Whether the next move is the client's."""
        cycle = self.cycle
        at_work = cycle is not None and not cycle.response_complete and not cycle.more_body
        return not at_work and not self.transport.is_closing()

    def _make_room(self) -> None:
        everyone: set[Any] = self.connections  # all of this class
        waiting = [each for each in everyone if each._keeps_us_waiting]
        held = Counter(each._address for each in waiting)
        waiting.sort(key=lambda each: (-held[each._address], each._was_answered, each._since))
        if waiting[0] is self:
            self._refuse(_UNAVAILABLE)
            return
        # Several at a time, for to look for them takes as long for one.
        for each in waiting[: max(1, min(self.most_connections // 16, len(waiting) - 1))]:
            each.transport.abort()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _refuse(self, status: str) -> None:
        """Answer by a status without a body, if nothing else is being answered, and close."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()


def guarded(limits: ServerLimits) -> type[GuardedProtocol]:
    """Return the protocol of a server with limits."""
    values = {
        "most_connections": connections_that_fit(limits.connections),
        "header_seconds": limits.header_seconds,
        "request_seconds": 2 * limits.seconds + _SENDING,  # to arrive, to be answered, to be sent
    }
    return type("GuardedProtocol", (GuardedProtocol,), values)
