"""Prometheus metrics and the access log: one observation for each request.

What is observed in the event loop is counted and logged a tenth of a second later, many at a time:
one by one it would cost as much as reading a small request.

Under gunicorn several workers answer, and a scrape reaches one of them: with
PROMETHEUS_MULTIPROC_DIR set (gunicorn.conf.py does) each writes its numbers to files there, and
whichever is scraped adds them up.

A label never holds what a client invented: a model that does not exist has the name "".
"""

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.rollout_states import RolloutStates
from service.gateway.server import EJECTED, Server
from service.gateway.statistics import ANSWERED, PREDICTING, Statistics, statistics_of
from service.gateway.version_states import VersionStates
from sluice.wire.novelty import readings

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BYTES = tuple(4**power * 1024 for power in range(9))  # 1 kB to 64 MB
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NOVELTY = (0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)  # 1 is the model's own threshold
COUNT_AFTER_S = 0.1
COUNT_AT = 64  # observations: more would hold up the event loop for longer than a request

Observed = tuple[Exchange, Caller]
# What the requests of a group have in common: dialect, verb, model, version, signature, status.
_Labels = tuple[str, str, str, int | None, str, str]
_OfWorkers = Literal["livesum", "livemin", "livemax"]


class _Histogram(Histogram):
    """One that takes many at once: prometheus_client writes twice for each that it is told of."""

    def observe_all(self, values: Sequence[float]) -> None:
        if not values:
            return
        self._sum.inc(sum(values))
        for place, count in Tally(
            [bisect_left(self._upper_bounds, each) for each in values]
        ).items():
            self._buckets[place].inc(count)


class _Children(NamedTuple):
    """The metrics of one dialect, model and version."""

    seconds: _Histogram
    bytes: _Histogram
    queued: _Histogram
    upstream: _Histogram
    decode: _Histogram
    joined: _Histogram
    rows: Counter
    calls: Counter


class Telemetry:
    """The metrics of one application, in a registry of its own, and its access log."""

    def __init__(self, access_log: AccessLog) -> None:
        self.access_log = access_log
        self.version_states = VersionStates()
        self.rollout_states = RolloutStates()
        self._registry = registry = CollectorRegistry()
        registry.register(self.version_states)
        registry.register(self.rollout_states)
        self._requests = Counter(
            "sluice_requests",
            "Requests answered.",
            ["dialect", "verb", "model", "version", "signature", "status"],
            registry=registry,
        )
        self._seconds = _Histogram(
            "sluice_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["dialect", "model", "version"],
            buckets=SECONDS,
            registry=registry,
        )
        self._queued = self._histogram("queued_seconds", "Waiting for a call to be free.", SECONDS)
        self._upstream = self._histogram(
            "upstream_seconds", "The call to the model server.", SECONDS
        )
        self._decode = self._histogram("decode_seconds", "Reading and checking the body.", SECONDS)
        self._joined = self._histogram(
            "joined_rows", "Rows of the call that a request went with, its own included.", ROWS
        )
        self._rows = self._counter_of("rows", "Rows answered.")
        self._calls = self._counter_of("calls", "Calls to the model server that answered them.")
        self._failed = self._counter_of("failed_seconds", "Spent on predictions that failed.")
        self._bytes = _Histogram(
            "sluice_request_bytes",
            "Size of a request's body.",
            ["dialect"],
            buckets=BYTES,
            registry=registry,
        )
        self._novelty = self._histogram(
            "novelty",
            "How unlike the training images a row is, as the model says; above 1, unlike.",
            NOVELTY,
        )
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
        self._cached = Counter(
            "sluice_cache_requests",
            "Predictions of the models whose answers are kept, by what came of it.",
            ["model", "outcome"],
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
        # prometheus_client looks a child up by all its labels at every call; these are few.
        self._counter = lru_cache(4096)(self._requests.labels)
        self._children = lru_cache(1024)(self._children_of)
        self._new: deque[Observed] = deque()
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
        observed = []
        while self._new:
            try:
                observed.append(self._new.popleft())
            except IndexError:  # another thread took it
                break
        if observed:
            self._count(observed)
            self.access_log.write(observed)

    def _flush_in_time(self) -> None:
        self._timer = None
        self.flush()

    def _count(self, observed: Sequence[Observed]) -> None:
        groups: dict[_Labels, list[Observed]] = defaultdict(list)
        for each in observed:
            exchange, caller = each
            labels = (
                exchange.dialect,
                exchange.verb,
                exchange.model,
                caller.version,
                caller.signature,
                exchange.status,
            )
            groups[labels].append(each)
        for labels, group in groups.items():
            self._count_group(labels, group)

    def _count_group(self, labels: _Labels, group: Sequence[Observed]) -> None:
        dialect, verb, model, number, signature, status = labels
        version = "" if number is None else str(number)
        self._counter(dialect, verb, model, version, signature if model else "", status).inc(
            len(group)
        )
        of = self._children(dialect, model, version)
        of.seconds.observe_all([exchange.seconds for exchange, _ in group])
        of.bytes.observe_all([exchange.bytes_in for exchange, _ in group if exchange.bytes_in])
        called = [caller for _, caller in group if caller.joined]
        of.queued.observe_all([caller.queued_s for caller in called])
        of.upstream.observe_all([caller.upstream_s for caller in called])
        of.decode.observe_all([caller.decode_s for caller in called])
        of.joined.observe_all([caller.joined for caller in called])
        if version and called:
            of.rows.inc(sum(caller.rows for caller in called))
            # Of one call they add up to 1.
            of.calls.inc(sum(caller.rows / caller.joined for caller in called))
        for outcome, count in Tally(caller.cache for _, caller in group if caller.cache).items():
            self._cached.labels(model, outcome).inc(count)
        if novelty := readings(caller.novelty for _, caller in group):
            self._novelty.labels(model, version).observe_all(novelty)
            for _, caller in group:
                caller.novelty = None  # a row of a joined call's array keeps all of its reply
        if model and verb in PREDICTING and status not in ANSWERED:
            failed_s = sum(exchange.seconds for exchange, _ in group)
            self._failed.labels(model, version).inc(failed_s)

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
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        registry.register(self.version_states)
        registry.register(self.rollout_states)
        return registry

    def _children_of(self, dialect: str, model: str, version: str) -> "_Children":
        return _Children(
            self._seconds.labels(dialect, model, version),
            self._bytes.labels(dialect),
            self._queued.labels(model, version),
            self._upstream.labels(model, version),
            self._decode.labels(model, version),
            self._joined.labels(model, version),
            self._rows.labels(model, version),
            self._calls.labels(model, version),
        )

    def _counter_of(self, name: str, meaning: str) -> Counter:
        return Counter(f"sluice_{name}", meaning, ["model", "version"], registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> "_Histogram":
        return _Histogram(
            f"sluice_{name}",
            meaning,
            ["model", "version"],
            buckets=buckets,
            registry=self._registry,
        )

    def _gauge(self, name: str, meaning: str, of_workers: _OfWorkers) -> Gauge:
        """of_workers: which of the workers' values a scrape shows, or their sum."""
        return Gauge(
            f"sluice_{name}", meaning, registry=self._registry, multiprocess_mode=of_workers
        )
