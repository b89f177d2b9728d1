"""Clients in this process: each asks one request after the other, and keeps what came of it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

Request = tuple[bytes, Mapping[str, str]]  # its body and headers

REFUSED = 503


class Asked(NamedTuple):
    """One request: when it was begun, on the monotonic clock, and what came of it."""

    begun: float
    seconds: float
    version: int  # that answered; 0: none said so, or nobody did


class Clients:
    """POST `requests(number of the client)` to a path, until the end. `asked` and `failures` grow.

    `due` tells from when a request was begun when its client's next one is. `patient` ones take a
    refusal for no answer: what follows is the same request.
    """

    def __init__(
        self,
        port: int,
        path: str,
        clients: int,
        requests: Callable[[int], Iterator[Request]],
        due: Callable[[float], float],
        patient: bool = False,
    ) -> None:
        self.asked: list[Asked] = []
        self.failures: list[str] = []
        self._port, self._path, self._due, self._patient = port, path, due, patient
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_all, args=(requests(number),))
            for number in range(clients)
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask_all(self, requests: Iterator[Request]) -> None:
        connection, due = HTTPConnection("127.0.0.1", self._port), 0.0
        for request in requests:
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            begun = time.monotonic()
            try:
                status, version, answer = self._answer(connection, request)
            except (OSError, HTTPException) as error:
                connection.close()  # the next request opens it anew
                status, version, answer = 0, 0, repr(error).encode()
            self.asked.append(Asked(begun, time.monotonic() - begun, version))
            if status != 200:
                self.failures.append(f"{status}: {answer[:200]!r}")
            due = self._due(begun)

    def _answer(self, connection: HTTPConnection, request: Request) -> tuple[int, int, bytes]:
        """Its status, the version that gave it, and its body."""
        body, headers = request
        while True:
            connection.request("POST", self._path, body, {**headers, "X-Sluice-Timing": "on"})
            reply = connection.getresponse()
            answer = reply.read()
            gives_up = not self._patient or self._stopped.is_set()
            if reply.status != REFUSED or gives_up:
                return reply.status, int(reply.headers.get("X-Sluice-Version", 0)), answer
