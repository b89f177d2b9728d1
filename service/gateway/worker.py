"""gunicorn's threaded worker, which also answers the connections that wait when it is told to stop.

gunicorn's own stops accepting at SIGTERM but keeps the listening socket open until it ends, so for
those seconds clients still connect, wait, and are reset. This one takes what is in the listen
queue, then closes the socket: whoever comes later is refused at once and can go elsewhere.
"""
import select

from gunicorn.workers.gthread import ThreadWorker


class DrainingWorker(ThreadWorker):
    def set_accept_enabled(self, enabled: bool | None) -> None:
        super().set_accept_enabled(enabled)
        if not self.alive:
            self._answer_listen_queue()

    def _answer_listen_queue(self) -> None:
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0]:
                self.accept(listener)  # where another worker was faster, this does nothing
            listener.close()
