"""Figures under TensorFlow Serving's names, in Prometheus's text form, on a port of their own.

Latencies are in microseconds and count successes only, as TensorFlow Serving's do.

Not prometheus_client, which the gateway has: it knows better what a counter is called. Asked for
`Counter(":tensorflow:serving:request_count", ...)`, version 0.26 writes
`:tensorflow:serving:request_count_total` and a gauge `:tensorflow:serving:request_count_created`
(its CounterMetricFamily the former alone): a dashboard made for TensorFlow Serving finds nothing.
Only samples put together by hand keep their name, and then `# TYPE` names another metric than they
do.
"""

import socket
import socketserver
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import grpc

DEFAULT_PATH = "/monitoring/prometheus/metrics"
# TensorFlow Serving's buckets, in µs: of calls up to some 20 minutes, of waiting up to one second.
_CALL_BOUNDS = tuple(10 * 1.8**power for power in range(33))
_WAIT_BOUNDS = tuple(100 * 1.2**power for power in range(52))
_INFERENCE = ("Predict", "Classify", "Regress", "MultiInference")

LabelNames = tuple[str, ...]
LabelValues = tuple[str, ...]  # one for each name, in the names' order


class Counter:
    """One number for each combination of label values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: LabelNames) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._counts: dict[LabelValues, int] = {}

    def add(self, *values: str, by: int = 1) -> None:
        self._counts[values] = self._counts.get(values, 0) + by

    def lines(self) -> list[str]:
        # A copy first: calls add labels on the event loop while a scrape's thread reads.
        return [
            f"{self.name}{{{_pairs(self.labels, values)}}} {count}"
            for values, count in list(self._counts.items())
        ]


class _Cell(NamedTuple):
    counts: list[int]  # one a bucket, and one for what is above them all
    total: list[float]  # a single number


class Histogram:
    """A distribution of microseconds for each combination of label values."""

    kind = "histogram"

    def __init__(self, name: str, text: str, labels: LabelNames, bounds: Sequence[float]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._bounds = bounds
        self._cells: dict[LabelValues, _Cell] = {}

    def add(self, seconds: float, *values: str) -> None:
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = _Cell([0] * (len(self._bounds) + 1), [0.0])
        microseconds = seconds * 1e6
        cell.counts[bisect_left(self._bounds, microseconds)] += 1
        cell.total[0] += microseconds

    def lines(self) -> list[str]:
        return [
            line
            for values, cell in list(self._cells.items())
            for line in self._cell_lines(_pairs(self.labels, values), cell)
        ]

    def _cell_lines(self, labels: str, cell: _Cell) -> list[str]:
        lines, below = [], 0  # a bucket counts what is at or below its bound
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), cell.counts, strict=True):
            below += count
            lines.append(f'{self.name}_bucket{{{labels},le="{bound}"}} {below}')
        return [
            *lines,
            f"{self.name}_sum{{{labels}}} {_number(cell.total[0])}",
            f"{self.name}_count{{{labels}}} {below}",
        ]  # the count is what the buckets say: read apart, it could contradict them


class Metrics:
    """The figures of one server. Names of models that callers made up are kept out of the labels.

    Each metric is written from one thread at a time: those of calls on the event loop, those of
    loads under a lock.
    """

    def __init__(self) -> None:
        self._models: set[str] = set()  # that were ever loaded
        self._loading = threading.Lock()
        self._requests = Counter(
            ":tensorflow:serving:request_count",
            "The total number of requests.",
            ("model_name", "status"),
        )
        self._latency = Histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            ("model_name", "API", "entrypoint"),
            _CALL_BOUNDS,
        )
        self._batched_runs = Counter(
            ":tensorflow:serving:batching_session:wrapped_run_count",
            "Total count of run calls on the wrapped session",
            (),
        )
        self._waiting = Histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Distribution of wall time spent (in microseconds) in queuing",
            ("thread_pool_name",),
            _WAIT_BOUNDS,
        )
        self._loads = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "The number of times a SavedModel was requested to be loaded.",
            ("model_path", "status"),
        )
        self._load_time = Counter(
            ":tensorflow:cc:saved_model:load_latency",
            "Latency in microseconds for SavedModels that were successfully loaded.",
            ("model_path",),
        )

    def called(self, model: str, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """Told of every call; those about models rather than to them are not counted."""
        if method not in _INFERENCE:
            return
        # A label value lives as long as the server: callers must not be able to make new ones.
        name = model if model in self._models else ""
        self._requests.add(name, code.name)
        if code is grpc.StatusCode.OK:
            self._latency.add(seconds, name, method, "GRPC")

    def batched(self, waits: Sequence[float]) -> None:
        """Told of every batch that begins, with the seconds that each part of it has waited."""
        self._batched_runs.add()
        for seconds in waits:
            self._waiting.add(seconds, "")  # TensorFlow Serving gives the label no value either

    @contextmanager
    def loading(self, model: str, path: Path) -> Iterator[None]:
        """The load of a version, warm-up included, inside the block."""
        self._models.add(model)
        started, status = time.monotonic(), "fail"
        try:
            yield
            status = "success"
        finally:
            with self._loading:
                self._loads.add(str(path), status)
                if status == "success":
                    self._load_time.add(str(path), by=int((time.monotonic() - started) * 1e6))

    def render(self) -> str:
        lines = []
        for metric in (
            self._requests,
            self._latency,
            self._batched_runs,
            self._waiting,
            self._loads,
            self._load_time,
        ):
            lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines()
        return "\n".join(lines) + "\n"


CLIENT_S = 5.0  # that a client may take, of whom each has a thread


class MetricsServer:
    """Answer GET `path` with what `render` gives; anything else is a 404 with a reason.

    From threads of its own: a scrape is answered while the event loop is busy, and costs calls
    nothing but Python's lock.
    """

    def __init__(self, address: tuple[str, int], path: str, render: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_S

            def do_GET(self) -> None:  # the name is http.server's
                known = self.path == path
                body = (render() if known else _UNKNOWN).encode()
                self.send_response(HTTPStatus.OK if known else HTTPStatus.NOT_FOUND)
                self.send_header("Content-Type", "text/plain" if known else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing: a scrape comes every few seconds."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

            def server_bind(self) -> None:
                """Less the question for this machine's name: a DNS may be away."""
                socketserver.TCPServer.server_bind(self)

        self._server = Server(address, Handler)
        self.port: int = self._server.server_address[1]
        # A daemon, as its handlers' are: a scrape that hangs must not keep the process alive.
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


_UNKNOWN = '{"error": "this server has no REST API, only metrics; the gateway has the REST API"}'


def _pairs(names: LabelNames, values: LabelValues) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{value:.15g}"  # 10 * 1.8**2 is 32.400000000000006, and 32.4 in TensorFlow Serving
