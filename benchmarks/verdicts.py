"""The ratios that the gateway is held to, and how far each is met.

Beside a figure stands the floor that was measured in the same run: what the same costs with nothing
of ours around it, and what share of it is reached. Where the floor itself misses the target, that
share is the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from cases import ALONE, BASE64, DIRECT, GRPC, JPEG, JSON, PAUSED, SMALL
from contenders import BEHIND_US, FLASK, GATEWAY, MODEL_SERVER, PEERS, RAW, REST, TWIN, UVICORN

if TYPE_CHECKING:
    from report import Results

RATE, P50, P99, CPU = "per_second", "p50_ms", "p99_ms", "gateway µs"
IN_PROCESS = "in-process"


class Verdict(NamedTuple):
    what: str
    figure: float
    target: str
    verdict: str
    remark: str = ""


class _Missing(Exception):
    """A figure that this run has not measured."""


class Found(NamedTuple):
    """A figure, what is to be said of it, and what it would be at the `floor`."""

    figure: float
    remark: str = ""
    floor: float | None = None


Figure = Callable[[], Found]


def verdicts(results: Results) -> list[Verdict]:
    """Those whose figures were measured."""
    judged = []
    for what, target, figure in _targets(Measured(results)):
        try:
            found = figure()
        except _Missing:
            continue
        verdict = _verdict(found, target)
        judged.append(Verdict(what, found.figure, target, verdict, found.remark))
    return judged


def _verdict(found: Found, target: str) -> str:
    if _meets(found.figure, target):
        return "met"
    if found.floor is None or _meets(found.floor, target):
        return "missed"
    share = min(found.figure / found.floor, found.floor / found.figure)
    return f"{share:.0%} of the floor, which is at {found.floor:.2f}"


def _meets(figure: float, target: str) -> bool:
    bound = float(target.split()[1].replace(",", ""))
    return figure <= bound if target.startswith("≤") else figure >= bound


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
        def figure() -> Found:
            ours = of(TWIN, SMALL, connections, CPU)
            flask = of(FLASK, SMALL, connections, "server µs")
            floor = _cpu_floor(of, connections)
            share = (
                f"; {ours:.0f} µs, {floor / ours:.0%} of it {RAW}, one gRPC call shared by all, "
                "and JSON read and written alone"
                if floor
                else ""
            )
            paused = _with_pauses(of, ours, "server µs") if connections == 1 else ""
            return Found(ours / flask, share + paused, floor and floor / flask)

        return figure

    def over_peers(kind: str, connections: int, *kinds: str) -> Figure:
        def figure() -> Found:
            peer = of.best(PEERS, (kind, *kinds), connections)
            rate = of.best_rate(PEERS, (kind, *kinds), connections)
            return _over(of, TWIN, kind, connections, rate, f" ({peer})")

        return figure

    def tail(connections: int) -> Figure:
        def figure() -> Found:
            peer = of.best(PEERS, (SMALL,), connections)
            theirs = of(peer, SMALL, connections, P99)
            return Found(of(TWIN, SMALL, connections, P99) / theirs, f" ({peer})")

        return figure

    def over_rest(kind: str, connections: int) -> Figure:
        rests = (REST, f"{REST} 2", f"{REST} 3")
        rest_kind = JSON if kind == JPEG else kind

        def figure() -> Found:
            rate = of.best_rate(rests, (rest_kind,), connections)
            return _over(of, BEHIND_US, kind, connections, rate)

        return figure

    def added(kind: str) -> Figure:
        def figure() -> Found:
            ours = of(TWIN, kind, 1, P50) - of(TWIN, DIRECT, 1, P50)
            flask = of(FLASK, SMALL, 1, P50)
            floor = _latency_floor(of) if kind == SMALL else None
            share = f"; {floor / ours:.0%} of it {RAW}, and JSON read and written" if floor else ""
            return Found(ours / flask, share + _with_pauses(of, ours, P50), floor and floor / flask)

        return figure

    def process(role: str, figure: str) -> Figure:
        return lambda: Found(of.process(TWIN, role, figure))

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
        lambda: Found(
            of.process(TWIN, GATEWAY, "memory_mb") + of.process(TWIN, MODEL_SERVER, "memory_mb")
        ),
    )
    yield "6. idle CPU, of one core", "≤ 0.01", process(GATEWAY, "idle")


def _over(
    of: Measured, name: str, kind: str, connections: int, rate: float, remark: str = ""
) -> Found:
    """Our rate over another's, and over that of the same work with nothing around it."""
    ours = of(name, kind, connections)
    try:
        floor, what = _floor(of, name, kind, connections)
    except _Missing:
        return Found(ours / rate, remark)
    return Found(ours / rate, f"{remark}; {ours / floor:.0%} of {what}", floor / rate)


def _floor(of: Measured, name: str, kind: str, connections: int) -> tuple[float, str]:
    if kind != SMALL:
        return of(IN_PROCESS, kind, connections), IN_PROCESS
    if connections == 1:
        return of(name, DIRECT, 1), "the model server's own gRPC"
    return max((of(each, SMALL, connections), each) for each in (RAW, UVICORN))


def _cpu_floor(of: Measured, connections: int) -> float | None:
    """µs: an empty answer, a gRPC call that all connections share, JSON read and written."""
    try:
        call, codec = of(TWIN, DIRECT, 1, "client_us"), of(IN_PROCESS, ALONE, 1, "cpu_us")
        return of(RAW, SMALL, connections, "server µs") + call / connections + codec
    except _Missing:
        return None


def _latency_floor(of: Measured) -> float | None:
    """ms: an empty answer, and JSON read and written."""
    try:
        return of(RAW, SMALL, 1, P50) + of(IN_PROCESS, ALONE, 1, "cpu_us") / 1000
    except _Missing:
        return None


def _with_pauses(of: Measured, ours: float, figure: str) -> str:
    """The same beside a Flask hello that is asked as seldom as a gateway before a model server."""
    try:
        return f"; {ours / of(FLASK, PAUSED, 1, figure):.2f} of one with pauses"
    except _Missing:
        return ""
