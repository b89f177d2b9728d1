"""grpc.health.v1: for every service alike, what /readyz answers."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
WATCH_EVERY_S = 2.0


class Health(HealthServicer):
    """A Check asks anew; once somebody watches, readiness is looked at every two seconds.

    A Watch that waits holds no thread: the base class calls back, given a pool of its own.
    """

    def __init__(self, services: Iterable[str], is_ready: Callable[[], bool]) -> None:
        super().__init__(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1, "health")
        )
        self._services, self._is_ready = ["", *services], is_ready
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._keep_looking, daemon=True)
        self._update(False)

    def end(self) -> None:
        """NOT_SERVING for good; whoever watches hears it."""
        self._ended.set()
        self.enter_graceful_shutdown()

    def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:  # noqa: N802
        if request.service in self._services:
            self._update(self._is_ready())
        return super().Check(request, context)

    def Watch(  # noqa: N802
        self,
        request: HealthCheckRequest,
        context: Any,
        send_response_callback: Any = None,
    ) -> Any:
        self._update(self._is_ready())
        with self._lock:
            if self._watching.ident is None:
                self._watching.start()
        return super().Watch(request, context, send_response_callback)

    def _keep_looking(self) -> None:
        while not self._ended.wait(WATCH_EVERY_S):
            self._update(self._is_ready())

    def _update(self, ready: bool) -> None:
        status = SERVING if ready else NOT_SERVING
        with self._lock:
            if self._server_status.get(self._services[-1]) != status:
                for service in self._services:
                    self.set(service, status)
