"""The admin port: /healthz, /readyz and /metrics for machines, from a thread of its own.

A probe that waits behind requests gets a busy pod killed just when it is needed, and a scrape that
does leaves the autoscaler blind. Python's own http.server does: it is nobody's but the cluster's,
three paths, and independent of the event loop that it reports on.
"""

import asyncio
import socket
import socketserver
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from service.gateway.gateway import Gateway
from service.gateway.readiness import Readiness, readiness
from service.gateway.routes.ops import readiness_document

STALLED_S = 15.0  # an event loop that has not turned for so long does not live
FRESH_S = 1.0  # a verdict that is not older is given again
WAIT_S = 0.05  # for a new one, before the last one is given
OLDEST_S = 10.0  # a verdict that is older is none
CLIENT_S = 5.0  # that a client may take


class AdminServer:
    """Listens from its making on. Every worker binds the same port, and any of them answers for
    all. Raises OSError for a port that cannot be had."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        self._gateway, self._loop = gateway, loop
        self._turned = time.monotonic()
        self._verdict: tuple[float, Readiness] | None = None
        self._asking: Any = None
        self._server = _Server(
            (gateway.settings.http_host, gateway.settings.admin_port), self._answer
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="admin", daemon=True
        )
        self._thread.start()

    def beat(self, now: float) -> None:
        """The event loop turns; `now` is on the monotonic clock."""
        self._turned = now

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/healthz":
            stalled_s = time.monotonic() - self._turned
            if stalled_s > STALLED_S:
                return 503, "application/json", b'{"status":"the event loop stands still"}'
            return 200, "application/json", b'{"status":"alive"}'
        if path == "/readyz":
            state = self._readiness()
            return 200 if state.ready else 503, "application/json", readiness_document(state)
        if path == "/metrics":
            self._readiness()  # the versions' states as they are now
            body, content_type = self._gateway.telemetry.exposition()
            return 200, content_type, body
        return 404, "application/json", b'{"error":"Here are /healthz, /readyz and /metrics"}'

    def _readiness(self) -> Readiness:
        """What the event loop says; where it is slow to, what it said last."""
        now = time.monotonic()
        if self._verdict is None or now - self._verdict[0] > FRESH_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.run_coroutine_threadsafe(
                    readiness(self._gateway.predictions), self._loop
                )
            try:
                patience_s = WAIT_S if self._verdict else 2.5
                self._verdict = (now, self._asking.result(patience_s))
            except FutureTimeout:
                pass
        if self._verdict is None or now - self._verdict[0] > OLDEST_S:
            return Readiness(False, "the gateway has not found out within its time", {})
        return self._verdict[1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = True

    def __init__(self, address: tuple[str, int], answer: Any) -> None:
        self.answer = answer
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Less the question for this machine's name: a DNS may be away, and the loop waits here."""
        socketserver.TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_S
    server_version = "sluice"
    sys_version = ""

    def do_GET(self) -> None:
        status, content_type, body = self.server.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
        """Probes and scrapes are not logged."""
