"""gunicorn's threaded worker, which also answers the connections that wait when it is told to stop.

gunicorn's own stops accepting at SIGTERM but keeps the listening socket open until it ends, so for
those seconds clients still connect, wait, and are reset. This one takes what is in the listen
queue, then closes the socket: whoever comes later is refused at once and can go elsewhere.

Where a gRPC port is set, the worker answers there as well, and drains both at the same time.
While it has nothing to do, it gives memory back.
"""

import select
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from service.gateway.memory import IdleTrim


class DrainingWorker(ThreadWorker):
    def init_process(self) -> None:
        self._idle_trim = IdleTrim()
        super().init_process()

    def notify(self) -> None:
        super().notify()
        self._idle_trim.beat()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        from service.gateway.rpc.server import start  # after the fork, as all that is gRPC's

        known: dict[str, Any] = self.wsgi.extensions  # type: ignore[attr-defined]  # Flask's
        self._rpc = start(known["settings"], known["model_server"], known["telemetry"])

    def run(self) -> None:
        super().run()
        self._rpc.drain()
        self._rpc.finish(self.notify)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self._rpc.stop()
        super().handle_quit(sig, frame)

    def set_accept_enabled(self, enabled: bool | None) -> None:
        super().set_accept_enabled(enabled)
        if not self.alive:
            self._rpc.drain()
            self._answer_listen_queue()

    def _answer_listen_queue(self) -> None:
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0]:
                self.accept(listener)  # where another worker was faster, this does nothing
            listener.close()
