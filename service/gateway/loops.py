"""From a thread into the event loop that the predictions belong to."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from service.gateway.predictions import Predictions

Result = TypeVar("Result")


class LoopRunner:
    """Runs coroutines in a loop that somebody else runs, such as the front's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class OwnLoopRunner:
    """Runs them in a loop of its own, in a thread that starts at the first call: under a WSGI
    server that forks, each process gets its own after the fork."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="predictions", daemon=True
                ).start()
                asyncio.run_coroutine_threadsafe(self._predictions.open(), self._loop).result()
            return self._loop


AnyLoopRunner = LoopRunner | OwnLoopRunner
