"""The metrics of one process and its access log: one observation for each request.

What is observed in the event loop is counted and logged a tenth of a second later, many at a time:
one by one it would cost as much as reading a small request.

Under gunicorn several workers answer, and a scrape reaches one of them: with
PROMETHEUS_MULTIPROC_DIR set (gunicorn.conf.py does) each writes its numbers to files there, and
whichever is scraped adds them up.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.request_metrics import Observed, RequestMetrics
from service.gateway.rollout_states import RolloutStates
from service.gateway.server import EJECTED, Server
from service.gateway.statistics import Statistics, statistics_of
from service.gateway.version_series import MULTIPROCESS_DIR, registry_of_all_workers
from service.gateway.version_states import VersionStates

COUNT_AFTER_S = 0.1
COUNT_AT = 64  # observations: more would hold up the event loop for longer than a request

_OfWorkers = Literal["livesum", "livemin", "livemax"]


class Telemetry:
    """The metrics of one application, in a registry of its own, and its access log."""

    def __init__(self, access_log: AccessLog) -> None:
        self.access_log = access_log
        self.version_states = VersionStates()
        self.rollout_states = RolloutStates()
        self._registry = registry = CollectorRegistry()
        registry.register(self.version_states)
        registry.register(self.rollout_states)
        self._of_requests = RequestMetrics(registry)
        self._refused = Counter(
            "sluice_refused", "Requests turned away before any work.", ["reason"], registry=registry
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
        self._in_flight = self._gauge("requests_in_flight", "Requests being worked on.", "livesum")
        self._waiting = self._gauge(
            "requests_waiting", "Of these, requests that wait to be sent on.", "livesum"
        )
        self._access_problem = self._gauge(
            "access_problem",
            "1 while the file of keys, or what it names, cannot be used as it is.",
            "livemax",
        )
        self._certificate_expires = self._gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in force expires; 0: none is.",
            "livemin",
        )
        self._handshakes_failed = Counter(
            "sluice_tls_handshakes_failed",
            "Connections that ended before they spoke HTTP.",
            ["reason"],
            registry=registry,
        )
        self._certificate_problem = self._gauge(
            "tls_problem", "1 while a certificate's files cannot be used as they are.", "livemax"
        )
        self._captures = Counter(
            "sluice_captures",
            "Requests that were to be written down, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        self._cache_bytes = self._gauge(
            "cache_bytes", "What the answers that are kept take.", "livesum"
        )
        self._shadowed = Counter(
            "sluice_shadow_requests",
            "Requests that a rollout's next version was to be asked too, by what came of it.",
            ["model", "outcome"],
            registry=registry,
        )
        self._shadow_changes = Counter(
            "sluice_shadow_changes",
            "Requests that a rollout's next version answers otherwise, by how; several at once.",
            ["model", "kind"],
            registry=registry,
        )
        self._canary_errors = Counter(
            "sluice_canary_errors",
            "Requests that the next version of a rollout was to answer, and failed.",
            ["model"],
            registry=registry,
        )
        self._rollout_problem = self._gauge(
            "rollout_problem",
            "1 while a rollout's file cannot be used as it is, or what is seen of one be written.",
            "livemax",
        )
        self._connections = self._gauge("connections", "Open HTTP connections.", "livesum")
        self._connections_closed = Counter(
            "sluice_connections_closed",
            "HTTP connections that the gateway closed on their clients, by why.",
            ["reason"],
            registry=registry,
        )
        self._new: deque[Observed] = deque()
        self._flushing = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def observe(self, exchange: Exchange, caller: Caller) -> None:
        """Count and log a request that has been answered: soon, where an event loop runs, at once
        elsewhere."""
        caller.trace.end(exchange, caller)
        caller.answered = True
        self._new.append((exchange, caller))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if len(self._new) >= COUNT_AT:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_later(COUNT_AFTER_S, self._flush_in_time)

    def flush(self) -> None:
        """Count and log what has been observed; from any thread."""
        with self._flushing:  # so that after it, what another thread took is counted too
            observed = []
            while self._new:
                observed.append(self._new.popleft())
            if observed:
                self._of_requests.count(observed)
        if observed:
            self.access_log.write(observed)

    def _flush_in_time(self) -> None:
        self._timer = None
        self.flush()

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

    def connection_closed(self, reason: str) -> None:
        """On a client that would have had it open: "full", "head", "body", "unread" or "room"."""
        self._connections_closed.labels(reason).inc()

    def access(self, problem: bool) -> None:
        """Whether the keys in force are others than the file of them says now."""
        self._access_problem.set(problem)

    def certificates(self, expires: float, problem: bool) -> None:
        """When the one that is shown to clients does, seconds since 1970, 0 where there is none;
        whether any files of certificates are at fault now."""
        self._certificate_expires.set(expires)
        self._certificate_problem.set(problem)

    def handshake_failed(self, reason: str) -> None:
        self._handshakes_failed.labels(reason).inc()

    def captured(self, outcome: str, requests: int) -> None:
        """So many were to be written down, and were or were not; from any thread."""
        self._captures.labels(outcome).inc(requests)

    def cache_holds(self, size: float) -> None:
        """So many bytes of answers, in this process."""
        self._cache_bytes.set(size)

    def shadowed(self, model: str, outcome: str) -> None:
        self._shadowed.labels(model, outcome).inc()

    def changed(self, model: str, kind: str) -> None:
        self._shadow_changes.labels(model, kind).inc()

    def canary_failed(self, model: str) -> None:
        self._canary_errors.labels(model).inc()

    def rollouts(self, problem: bool) -> None:
        """Whether anything is wrong with a rollout's files now."""
        self._rollout_problem.set(problem)

    def exposition(self) -> tuple[bytes, str]:
        """The metrics of all workers in Prometheus's text format, and its content type."""
        self.flush()
        return generate_latest(self._of_all_workers()), CONTENT_TYPE_LATEST

    def statistics(self) -> dict[str, dict[str, Statistics]]:
        """What all workers have counted of predictions, by model and version."""
        self.flush()
        metrics = self._of_all_workers().collect()
        return statistics_of(sample for metric in metrics for sample in metric.samples)

    def _of_all_workers(self) -> CollectorRegistry:
        if MULTIPROCESS_DIR not in os.environ:
            return self._registry
        registry = registry_of_all_workers()
        registry.register(self.version_states)
        registry.register(self.rollout_states)
        return registry

    def _gauge(self, name: str, meaning: str, of_workers: _OfWorkers) -> Gauge:
        """of_workers: which of the workers' values a scrape shows, or their sum."""
        return Gauge(
            f"sluice_{name}", meaning, registry=self._registry, multiprocess_mode=of_workers
        )
