"""Prometheus metrics and the access log: one observation for each request.

Under gunicorn several workers answer, and a scrape reaches one of them: with
PROMETHEUS_MULTIPROC_DIR set (gunicorn.conf.py does) each writes its numbers to files there, and
whichever is scraped adds them up.

A label never holds what a client invented: a model that does not exist has the name "".
"""

import os
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.servers import EJECTED, Server
from service.gateway.statistics import ANSWERED, PREDICTING, Statistics, statistics_of

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BYTES = tuple(4**power * 1024 for power in range(9))  # 1 kB to 64 MB
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """The metrics of one application, in a registry of its own, and its access log."""

    def __init__(self, access_log: AccessLog) -> None:
        self.access_log = access_log
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "sluice_requests",
            "Requests answered.",
            ["dialect", "verb", "model", "version", "signature", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "sluice_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["dialect", "model", "version"],
            buckets=SECONDS,
            registry=registry,
        )
        self._queued = self._histogram("queued", "Waiting for a call to be free.")
        self._upstream = self._histogram("upstream", "The call to the model server.")
        self._decode = self._histogram("decode", "Reading and checking the body.")
        self._joined = Histogram(
            "sluice_joined_rows",
            "Rows of the call that a request went with, its own included.",
            ["model", "version"],
            buckets=ROWS,
            registry=registry,
        )
        self._rows = self._count("rows", "Rows answered.")
        self._calls = self._count("calls", "Calls to the model server that answered them.")
        self._failed = self._count("failed_seconds", "Spent on predictions that failed.")
        self._bytes = Histogram(
            "sluice_request_bytes",
            "Size of a request's body.",
            ["dialect"],
            buckets=BYTES,
            registry=registry,
        )
        self._refused = Counter(
            "sluice_refused", "Requests turned away unread.", ["reason"], registry=registry
        )
        self._upstream_errors = Counter(
            "sluice_upstream_errors",
            "Calls that the model server did not answer.",
            ["server", "status"],
            registry=registry,
        )
        self._ejections = Counter(
            "sluice_ejections", "Times that a server got no calls.", ["server"], registry=registry
        )
        self._in_flight = self._gauge("in_flight", "Requests being worked on.")
        self._waiting = self._gauge("waiting", "Of these, requests that wait to be sent on.")
        self._connections = Gauge(
            "sluice_connections",
            "Open HTTP connections.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        # prometheus_client looks a child up by all its labels at every call; these are few.
        self._counter = lru_cache(4096)(self._requests.labels)
        self._timers = lru_cache(1024)(self._timers_of)
        self._sizes = lru_cache(64)(self._bytes.labels)

    def observe(self, exchange: Exchange, caller: Caller) -> None:
        """Count and log a request that has been answered."""
        model, dialect = exchange.model, exchange.dialect
        version = "" if caller.version is None else str(caller.version)
        signature = caller.signature if model else ""
        self._counter(dialect, exchange.verb, model, version, signature, exchange.status).inc()
        timers = self._timers(dialect, model, version)
        seconds, queued, upstream, decode, joined, rows, calls = timers
        seconds.observe(exchange.seconds)
        if caller.joined:
            queued.observe(caller.queued_s)
            upstream.observe(caller.upstream_s)
            decode.observe(caller.decode_s)
            joined.observe(caller.joined)
            if version:
                rows.inc(caller.rows)
                calls.inc(caller.rows / caller.joined)  # of one call they add up to 1
        if model and exchange.verb in PREDICTING and exchange.status not in ANSWERED:
            self._failed.labels(model, version).inc(exchange.seconds)
        if exchange.bytes_in:
            self._sizes(dialect).observe(exchange.bytes_in)
        self.access_log.write(exchange, caller)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def servers(self, servers: Iterable[Server]) -> None:
        """Count what has happened to the model servers since the last time."""
        for server in servers:
            for event, count in server.events.items():
                if event == EJECTED:
                    self._ejections.labels(server.target).inc(count)
                else:
                    self._upstream_errors.labels(server.target, event).inc(count)
            server.events.clear()

    def level(self, in_flight: int, waiting: int, connections: int) -> None:
        """How full this process is now."""
        self._in_flight.set(in_flight)
        self._waiting.set(waiting)
        self._connections.set(connections)

    def exposition(self) -> tuple[bytes, str]:
        """The metrics of all workers in Prometheus's text format, and its content type."""
        return generate_latest(self._of_all_workers()), CONTENT_TYPE_LATEST

    def statistics(self, model: str) -> dict[str, Statistics]:
        """What all workers have counted of a model's predictions, by version."""
        metrics = self._of_all_workers().collect()
        return statistics_of(model, (sample for metric in metrics for sample in metric.samples))

    def _of_all_workers(self) -> CollectorRegistry:
        if MULTIPROCESS_DIR not in os.environ:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def _timers_of(
        self, dialect: str, model: str, version: str
    ) -> tuple[Histogram, Histogram, Histogram, Histogram, Histogram, Counter, Counter]:
        return (
            self._seconds.labels(dialect, model, version),
            self._queued.labels(model, version),
            self._upstream.labels(model, version),
            self._decode.labels(model, version),
            self._joined.labels(model, version),
            self._rows.labels(model, version),
            self._calls.labels(model, version),
        )

    def _count(self, name: str, meaning: str) -> Counter:
        return Counter(f"sluice_{name}", meaning, ["model", "version"], registry=self._registry)

    def _histogram(self, step: str, meaning: str) -> Histogram:
        return Histogram(
            f"sluice_{step}_seconds",
            meaning,
            ["model", "version"],
            buckets=SECONDS,
            registry=self._registry,
        )

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(
            f"sluice_requests_{name}",
            meaning,
            registry=self._registry,
            multiprocess_mode="livesum",
        )
