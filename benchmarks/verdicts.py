"""The ratios that the gateway is held to, and how far each is met.

Where a floor binds (the load generator, TensorFlow itself) its share is told beside the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from cases import BASE64, DIRECT, GRPC, JPEG, JSON, PAUSED, SMALL
from contenders import BEHIND_US, FLASK, GATEWAY, MODEL_SERVER, PEERS, RAW, REST, TWIN, UVICORN

if TYPE_CHECKING:
    from report import Results

RATE, P50, P99, CPU = "per_second", "p50_ms", "p99_ms", "gateway µs"


class Verdict(NamedTuple):
    what: str
    figure: float
    target: str
    verdict: str
    remark: str = ""


class _Missing(Exception):
    """A figure that this run has not measured."""


def verdicts(results: Results) -> list[Verdict]:
    """Those whose figures were measured."""
    found = []
    for what, target, figure in _targets(Measured(results)):
        try:
            value, remark = figure()
        except _Missing:
            continue
        bound = float(target.split()[1].replace(",", ""))
        met = value <= bound if target.startswith("≤") else value >= bound
        found.append(Verdict(what, value, target, "met" if met else "missed", remark))
    return found


Figure = Callable[[], tuple[float, str]]


class Measured:
    """The results, where a figure that is missing raises _Missing."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def __call__(self, name: str, kind: str, connections: int, figure: str = RATE) -> float:
        found = self._results.get(name, kind, connections, figure)
        if found is None:
            raise _Missing
        return found

    def process(self, name: str, role: str, figure: str) -> float:
        found = self._results.of_process(name, role, figure)
        if found is None:
            raise _Missing
        return found

    def best(self, names: tuple[str, ...], kinds: tuple[str, ...], connections: int) -> str:
        """The name with the highest rate in any of these kinds: of those who answered at all."""
        rates = [
            (rate, name)
            for name in names
            for kind in kinds
            if (rate := self._results.get(name, kind, connections, RATE))
        ]
        if not rates:
            raise _Missing
        return max(rates)[1]

    def best_rate(self, names: tuple[str, ...], kinds: tuple[str, ...], connections: int) -> float:
        name = self.best(names, kinds, connections)
        return max(self._results.get(name, kind, connections, RATE) or 0 for kind in kinds)


def _targets(of: Measured) -> Iterator[tuple[str, str, Figure]]:
    """What is told, its target, and its figure with a remark."""

    def cpu(connections: int) -> Figure:
        def figure() -> tuple[float, str]:
            ours = of(TWIN, SMALL, connections, CPU)
            flask = of(FLASK, SMALL, connections, "server µs")
            paused = _with_pauses(of, ours, "server µs") if connections == 1 else ""
            return ours / flask, _cpu_floor(of, ours, connections) + paused

        return figure

    def over_peers(kind: str, connections: int, *kinds: str) -> Figure:
        def figure() -> tuple[float, str]:
            peer = of.best(PEERS, (kind, *kinds), connections)
            rate = of.best_rate(PEERS, (kind, *kinds), connections)
            return of(TWIN, kind, connections) / rate, f" ({peer}){_share(of, kind, connections)}"

        return figure

    def tail(connections: int) -> Figure:
        def figure() -> tuple[float, str]:
            peer = of.best(PEERS, (SMALL,), connections)
            return of(TWIN, SMALL, connections, P99) / of(peer, SMALL, connections, P99), (
                f" ({peer})"
            )

        return figure

    def over_rest(kind: str, connections: int) -> Figure:
        rests = (REST, f"{REST} 2", f"{REST} 3")
        rest_kind = JSON if kind == JPEG else kind
        return lambda: (
            of(BEHIND_US, kind, connections) / of.best_rate(rests, (rest_kind,), connections),
            _share(of, kind, connections),
        )

    def added(kind: str) -> Figure:
        return lambda: (
            (of(TWIN, kind, 1, P50) - of(TWIN, DIRECT, 1, P50)) / of(FLASK, SMALL, 1, P50),
            _with_pauses(of, of(TWIN, kind, 1, P50) - of(TWIN, DIRECT, 1, P50), P50),
        )

    def process(role: str, figure: str) -> Figure:
        return lambda: (of.process(TWIN, role, figure), "")

    yield "1. gateway's CPU over Flask's, small JSON at 32", "≤ 0.5", cpu(32)
    yield "1. the same at 1", "≤ 1.5", cpu(1)
    yield "2. twin over the best Python peer, small JSON at 32", "≥ 1.7", over_peers(SMALL, 32)
    yield "2. the same at 128", "≥ 2.3", over_peers(SMALL, 128)
    yield "2. its p99 over that peer's, at 32", "≤ 1", tail(32)
    yield "2. its p99 over that peer's, at 128", "≤ 1", tail(128)
    yield "2. twin over the best Python peer, small JSON at 1", "≥ 1", over_peers(SMALL, 1)
    yield "2. the same, 256×256×3 JSON at 8", "≥ 2", over_peers(JSON, 8)
    yield "2. the same, JPEG at 8", "≥ 1.25", over_peers(JPEG, 8, BASE64)
    yield (
        "3. before TensorFlow Serving over its REST, small JSON at 32",
        "≥ 1.3",
        over_rest(SMALL, 32),
    )
    yield "3. the same at 128", "≥ 1.6", over_rest(SMALL, 128)
    yield "3. the same at 1", "≥ 0.6", over_rest(SMALL, 1)
    yield "3. the same, 256×256×3 JSON at 8", "≥ 1.2", over_rest(JSON, 8)
    yield "3. JPEG over JSON to its REST, at 8", "≥ 2.5", over_rest(JPEG, 8)
    yield (
        "4. latency added to the model server's gRPC, gRPC, over Flask's p50",
        "≤ 0.8",
        added(GRPC),
    )
    yield "4. the same, small JSON", "≤ 0.8", added(SMALL)
    yield "6. the largest worker, MB", "≤ 80", process(GATEWAY, "largest_mb")
    yield "6. gateway's start to its first answer, s", "≤ 1.5", process(GATEWAY, "start_s")
    yield (
        "6. gateway and model server, MB",
        "≤ 1,000",
        lambda: (
            of.process(TWIN, GATEWAY, "memory_mb") + of.process(TWIN, MODEL_SERVER, "memory_mb"),
            "",
        ),
    )
    yield "6. idle CPU, of one core", "≤ 0.01", process(GATEWAY, "idle")


def _cpu_floor(of: Measured, ours: float, connections: int) -> str:
    """What of the CPU is an empty answer, and a gRPC call that all connections share."""
    try:
        call = of(TWIN, DIRECT, 1, "client_us")
        floor = of(RAW, SMALL, connections, "server µs") + call / connections
    except _Missing:
        return ""
    return f"; {ours:.0f} µs, {floor / ours:.0%} of it {RAW}, and one gRPC call shared by all"


def _with_pauses(of: Measured, ours: float, figure: str) -> str:
    """The same beside a Flask hello that is asked as seldom as a gateway before a model server."""
    try:
        return f"; {ours / of(FLASK, PAUSED, 1, figure):.2f} of one with pauses"
    except _Missing:
        return ""


def _share(of: Measured, kind: str, connections: int) -> str:
    """What share of the floor this is: of the same work with nothing around it."""
    try:
        if kind == SMALL:
            floor, name = max((of(each, SMALL, connections), each) for each in (RAW, UVICORN))
            return f"; {of(TWIN, kind, connections) / floor:.0%} of {name}"
        floor = of("in-process", kind, connections)
        return f"; {of(TWIN, kind, connections) / floor:.0%} of in-process"
    except _Missing:
        return ""
