"""Answers queries with a model: batches, time limits, and reasons for bad images."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kerastl.serving.batching import Batcher
from kerastl.serving.query import Outputs, Query, Rejected
from kerastl.serving.reasons import invalid_image_reason
from kerastl.serving.repository import Repository

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the metrics, as Prometheus reads them."""
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_LARGE = 2**18  # bytes that take long enough to read to be read in a thread
_LONGEST_REST = 0.5  # seconds
T = TypeVar("T")
_NAMED = 5  # bad images of a request whose reasons are given


@dataclass(frozen=True)
class ServerLimits:
    """What a server takes at most.

    Args:
        body_bytes: of a request.
        rows: images in a request.
        pixels: of the encoded images of a request, by their headers, as `decode_cost` counts them.
        batch_rows: images in a batch.
        batch_pixels: that are decoded for a batch.
        queue_rows: images that wait.
        queue_pixels: that wait to be decoded.
        held_bytes: of all requests that are read or wait at the same time.
        seconds: from the last byte of a request to its answer.
        header_seconds: from the first byte of a request, or from the connection, to the end of its
            headers.
        connections: that are open at the same time.
    """

    body_bytes: int = 32 * 2**20
    rows: int = 256
    pixels: int = 55_000_000
    batch_rows: int = 32
    batch_pixels: int = 4_000_000
    queue_rows: int = 2048
    queue_pixels: int = 1_000_000_000
    held_bytes: int = 256 * 2**20
    seconds: float = 30.0
    header_seconds: float = 10.0
    connections: int = 1024


class Metrics:
    """The counters of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("protocol", "status")
        self.requests: Any = Counter(
            "kerastl_requests", "Requests answered.", labels, registry=self.registry
        )
        self.seconds: Any = Histogram(
            "kerastl_request_seconds",
            "Seconds from the last byte of a request to its answer.",
            ("protocol",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows: Any = Histogram(
            "kerastl_batch_rows", "Images in a batch.", buckets=_ROWS, registry=self.registry
        )
        self.bad_images: Any = Counter(
            "kerastl_bad_images", "Encoded images that cannot be decoded.", registry=self.registry
        )
        self.waiting_rows: Any = Gauge(
            "kerastl_waiting_images", "Images that are waiting for a batch.", registry=self.registry
        )
        self.version: Any = Gauge(
            "kerastl_model_version", "The version that is served.", registry=self.registry
        )


@dataclass(eq=False)
class Service:
    """One model, whose repository is started, behind any protocol."""

    name: str
    repository: Repository
    limits: ServerLimits = field(default_factory=ServerLimits)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.batcher = Batcher(
            max_rows=self.limits.batch_rows,
            max_cost=self.limits.batch_pixels,
            max_queue=self.limits.queue_rows,
            max_queue_cost=self.limits.queue_pixels,
            observe=self.metrics.batch_rows.observe,
        )
        self._thread = ThreadPoolExecutor(1, "kerastl-requests")
        self._rest_seconds = 0.0
        self._held_bytes = 0

    def close(self) -> None:
        """End the threads when what runs is done."""
        self.batcher.close()
        self._thread.shutdown(wait=False)

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Give a function that counts bytes of a request as held until the block ends.

        Raises:
            Rejected: by the function: the request is too large (413), or all are together (503).
        """
        size = 0

        def count(more: int) -> None:
            nonlocal size
            size, self._held_bytes = size + more, self._held_bytes + more
            if size > self.limits.body_bytes:
                raise Rejected(413, f"A request can have at most {self.limits.body_bytes:,} bytes.")
            if self._held_bytes > self.limits.held_bytes:
                raise Rejected(503, "Too many bytes of requests are waiting. Try again later.")

        try:
            yield count
        finally:
            self._held_bytes -= size

    async def apart(self, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns, run in a thread where it has many bytes to go through.

        There is one such thread, so that what is read takes little memory at a time, and it rests
        as long as it worked: parsers hold the interpreter, and small requests need it too.
        """
        if size < _LARGE:
            return function(*arguments)

        def run() -> T:
            time.sleep(self._rest_seconds)
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self._rest_seconds = min(_LONGEST_REST, time.perf_counter() - started)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def version(self, name: str, number: int | None = None) -> Any:
        """Return the version that is served.

        Raises:
            Rejected: another model or version is asked for.
        """
        served = self.repository.served
        if name != self.name:
            raise Rejected(404, f"The model served here is {self.name!r}. Received: {name!r}")
        if number not in (None, served.number):
            raise Rejected(404, f"Version {served.number} is served. Received: version {number}")
        return served

    async def answer(self, version: Any, query: Query) -> Outputs:
        """Return the outputs of a version for a query.

        Raises:
            Rejected: an image is bad (400), the images are too large (413), the queue is full (503)
                or the time is over (504); the model has no answer (500).
        """
        if query.cost > self.limits.pixels:
            raise Rejected(
                413,
                f"The images of a request can have at most {self.limits.pixels:,} pixels, by "
                "their headers; further scans of a JPEG and frames of a GIF count too. "
                f"Received {len(query.rows)} images with more pixels. Send fewer or smaller "
                "images.",
            )
        try:
            async with asyncio.timeout(self.limits.seconds):
                outputs = await self.batcher.submit(version, query)
        except TimeoutError as error:
            seconds = f"{self.limits.seconds:g} s"
            raise Rejected(
                504, f"There was no answer within {seconds}. Try again later."
            ) from error
        if "valid" in outputs and not outputs["valid"].all():
            await self._reject(query, outputs["valid"])
        for name, values in outputs.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise Rejected(
                    500, f"The model returned {name!r} with numbers that are not finite."
                )
        return outputs

    async def _reject(self, query: Query, valid: np.ndarray) -> None:
        bad = np.flatnonzero(~valid).tolist()
        self.metrics.bad_images.inc(len(bad))
        named = [(row, query.rows[row]) for row in bad[:_NAMED]]
        reasons = await self.apart(
            _LARGE,
            lambda: [f"image {row}: {invalid_image_reason(data)}" for row, data in named],
        )
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise Rejected(
            400, f"{len(bad)} of {len(valid)} images are bad: {'; '.join(reasons)}{more}"
        )

    @contextlib.contextmanager
    def measured(self, protocol: str) -> Iterator[None]:
        """Count a request with the seconds and the status that the block ends with."""
        status, start = 500, time.perf_counter()
        try:
            yield
            status = 200
        except Rejected as rejected:
            status = rejected.status
            raise
        finally:
            self.metrics.seconds.labels(protocol).observe(time.perf_counter() - start)
            self.metrics.requests.labels(protocol, str(status)).inc()

    def metrics_text(self) -> bytes:
        """Return the metrics as they are now, in Prometheus' text format."""
        self.metrics.waiting_rows.set(self.batcher.waiting_rows)
        self.metrics.version.set(self.repository.served.number)
        return bytes(generate_latest(self.metrics.registry))
