"""What is counted of requests, for Prometheus: many at a time, as they were observed.

A label never holds what a client invented: a model that does not exist has the name "". Of a
model's versions those that answered last have series (version_series.py).
"""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.statistics import ANSWERED, PREDICTING
from service.gateway.version_series import VersionCounter, VersionHistogram, Versions
from sluice.wire.novelty import readings

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BYTES = tuple(4**power * 1024 for power in range(9))  # 1 kB to 64 MB
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NOVELTY = (0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)  # 1 is the model's own threshold

Observed = tuple[Exchange, Caller]
# What the requests of a group have in common: dialect, verb, model, version, signature, status.
_Labels = tuple[str, str, str, int | None, str, str]


class _Children(NamedTuple):
    """The metrics of one dialect, model and version."""

    seconds: VersionHistogram
    bytes: VersionHistogram
    queued: VersionHistogram
    upstream: VersionHistogram
    decode: VersionHistogram
    joined: VersionHistogram
    rows: Counter
    calls: Counter


class RequestMetrics:
    """Of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._requests = VersionCounter(
            "sluice_requests",
            "Requests answered.",
            ["dialect", "verb", "model", "version", "signature", "status"],
            registry=registry,
        )
        self._seconds = VersionHistogram(
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
        self._bytes = VersionHistogram(
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
        self._cached = Counter(
            "sluice_cache_requests",
            "Predictions of the models whose answers are kept, by what came of it.",
            ["model", "outcome"],
            registry=registry,
        )
        self._versions = Versions()
        self._of_versions = (
            *(self._requests, self._seconds, self._queued, self._upstream, self._decode),
            *(self._joined, self._rows, self._calls, self._failed, self._novelty),
        )
        # prometheus_client looks a child up by all its labels at every call; these are few.
        self._counter = lru_cache(4096)(self._requests.labels)
        self._children = lru_cache(1024)(self._children_of)

    def count(self, observed: Sequence[Observed]) -> None:
        """Requests that have been answered; from one thread at a time."""
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
        if version:
            self._let_go_of_others(model, version)
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

    def _let_go_of_others(self, model: str, version: str) -> None:
        """Of versions that have not answered for long, now that this one has."""
        for old in self._versions.count(model, version):
            self._versions.let_go(model, old, self._of_versions)
            self._counter.cache_clear()
            self._children.cache_clear()

    def _children_of(self, dialect: str, model: str, version: str) -> _Children:
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

    def _counter_of(self, name: str, meaning: str) -> VersionCounter:
        labels = ["model", "version"]
        return VersionCounter(f"sluice_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> VersionHistogram:
        return VersionHistogram(
            f"sluice_{name}",
            meaning,
            ["model", "version"],
            buckets=buckets,
            registry=self._registry,
        )
