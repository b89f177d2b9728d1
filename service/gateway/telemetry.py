"""Prometheus metrics and the access log: one observation for each request.

Under gunicorn several workers answer, and a scrape reaches one of them: with
PROMETHEUS_MULTIPROC_DIR set (gunicorn.conf.py does) each writes its numbers to files there, and
whichever is scraped adds them up.
"""

import logging
import os
import time

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BYTES = tuple(4**power * 1024 for power in range(9))  # 1 kB to 64 MB
UNMEASURED = frozenset({"/healthz", "/readyz", "/metrics"})
access_log = logging.getLogger("service.gateway.access")


class Telemetry:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "sluice_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "sluice_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.request_bytes = Histogram(
            "sluice_request_bytes",
            "Size of a request's body.",
            ["route"],
            buckets=BYTES,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "sluice_requests_in_flight",
            "Requests being worked on.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def attach(self, app: Flask) -> None:
        """Observe every request of `app`, except the probes and the scrapes themselves."""
        app.before_request(self._begin)
        app.after_request(self._answered)
        app.teardown_request(self._end)

    def observe(self, method: str, route: str, status: str, seconds: float, size: int) -> None:
        """A request that has been answered; `size` is its body's, in bytes."""
        self.requests.labels(method, route, status).inc()
        self.seconds.labels(route).observe(seconds)
        self.request_bytes.labels(route).observe(size)

    def exposition(self) -> tuple[bytes, str]:
        """The metrics of all workers in Prometheus's text format, and its content type."""
        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _begin(self) -> None:
        if request.path not in UNMEASURED:
            g.began = time.perf_counter()
            self.in_flight.inc()

    def _answered(self, response: Response) -> Response:
        if "began" in g:
            seconds = time.perf_counter() - g.began
            self.observe(
                request.method,
                _route(),
                str(response.status_code),
                seconds,
                request.content_length or 0,
            )
            access_log.info(
                "%s %s %d %.1f ms",
                request.method,
                request.path,
                response.status_code,
                seconds * 1e3,
            )
        return response

    def _end(self, _error: BaseException | None) -> None:
        if "began" in g:
            self.in_flight.dec()


def _route() -> str:
    """The route's pattern, never the path: names that clients invent would grow without end."""
    return request.url_rule.rule if request.url_rule else "none"
