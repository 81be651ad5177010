"""What a server counts, as Prometheus reads it."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("protocol", "status")
        self.requests: Any = Counter(
            "kerastl_requests", "Requests answered.", labels, registry=self._registry
        )
        self.seconds: Any = Histogram(
            "kerastl_request_seconds",
            "From the last byte of a request to its answer.",
            ("protocol",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_rows: Any = Histogram(
            "kerastl_batch_rows", "Images in a batch.", buckets=_ROWS, registry=self._registry
        )
        self.bad_images: Any = Counter(
            "kerastl_bad_images", "Encoded images that are none.", registry=self._registry
        )
        self.waiting_rows: Any = Gauge(
            "kerastl_waiting_images", "Images that wait for a batch.", registry=self._registry
        )
        self.version: Any = Gauge(
            "kerastl_model_version", "The version that is served.", registry=self._registry
        )

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return bytes(generate_latest(self._registry))
