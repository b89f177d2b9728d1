"""The life of one version: START -> LOADING -> AVAILABLE -> UNLOADING -> END."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from service.modelserver.errors import status_of
from service.modelserver.policy import fingerprint
from service.modelserver.servable import Servable
from sluice.wire.contract import State
from sluice.wire.protos.serving_pb2 import ModelVersionStatus, StatusProto

Load = Callable[["Version"], Servable]  # load and warm up; raises what it likes

log = logging.getLogger(__name__)


class Version:
    """One version directory of one model, and its servable while there is one.

    Thread-safe; `changed` guards the states of all versions, so that who holds it sees a swap
    either not begun or done.
    """

    def __init__(self, model: str, number: int, path: Path, changed: threading.Condition) -> None:
        self.model, self.number, self.path = model, number, path
        self.state = State.START
        self.failures = 0
        self._failed_at = 0.0
        self._failed_files: frozenset[tuple[str, int, int]] = frozenset()
        self._status = StatusProto()
        self._servable: Servable | None = None
        self._leases = 0
        self._changed = changed

    def hold(self) -> Servable:
        """The servable of an AVAILABLE version, which stays loaded until `release`.

        The caller holds `changed`, under which it has seen that the version is AVAILABLE.
        """
        assert self._servable is not None
        self._leases += 1
        return self._servable

    def release(self) -> None:
        with self._changed:
            self._leases -= 1
            if self._leases == 0 and self.state == State.UNLOADING:
                self._changed.notify_all()

    def load(self, load: Load) -> None:
        """Become AVAILABLE, or END with the error. Blocks; never raises."""
        self._enter(State.LOADING)
        log.info("Loading %s from %s", self, self.path)
        started = time.monotonic()
        # Before the load: a file that arrives during it makes the version due again.
        files = fingerprint(self.path)
        try:
            servable = load(self)
        except Exception as error:  # a SavedModel can break TensorFlow in any way there is
            self._fail(error, files)
            return
        with self._changed:
            self._servable, self._status, self.state = servable, StatusProto(), State.AVAILABLE
        self.failures = 0
        log.info("Successfully loaded %s in %.1f s", self, time.monotonic() - started)

    def unload(self) -> None:
        """Take no new request, wait for those that hold a lease, free the model. Blocks."""
        self._enter(State.UNLOADING)
        with self._changed:
            # Waiting gives `changed` up, so that leases can be released and others taken.
            self._changed.wait_for(lambda: self._leases == 0)
            servable, self._servable = self._servable, None
        if servable is not None:
            servable.close()  # outside `changed`: it may wait, and every request needs that lock
        self._enter(State.END)
        log.info("Unloaded %s", self)

    def is_due(self, max_retries: int, retry_interval_s: float) -> bool:
        """Whether it should be loaded (again): new, unloaded before, or failed and changed since.

        A version that failed is tried again when its files change (it was half copied), and
        `max_retries` times every `retry_interval_s` even if they do not.
        """
        if self.state == State.START:
            return True
        if self.state != State.END:
            return False
        if not self.failures or fingerprint(self.path) != self._failed_files:
            return True
        waited = time.monotonic() - self._failed_at >= retry_interval_s
        return waited and self.failures <= max_retries

    def status(self) -> ModelVersionStatus:
        """As GetModelStatus reports it; a failed load is END with the error.

        Without the lock, on the event loop: the state is read first, and `_fail` sets it last, so
        that END never comes without its error.
        """
        return ModelVersionStatus(version=self.number, state=self.state, status=self._status)

    def __str__(self) -> str:
        return f"{{name: {self.model} version: {self.number}}}"

    def _enter(self, state: State) -> None:
        with self._changed:
            self.state = state

    def _fail(self, error: Exception, files: frozenset[tuple[str, int, int]]) -> None:
        code, message = status_of(error)
        self.failures += 1
        self._failed_at, self._failed_files = time.monotonic(), files
        with self._changed:
            self._status = _status_proto(code, message)
            self.state = State.END
        log.error("Loading %s failed: %s: %s", self, code.name, message)


def _status_proto(code: grpc.StatusCode, message: str) -> StatusProto:
    return StatusProto(error_code=code.value[0], error_message=message)
