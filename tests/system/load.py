"""Open-loop load: requests leave at times drawn beforehand, whether or not those before them are
answered, as they do where many strangers ask.

Bare asyncio protocols, because the load shares the machine's cores with what it measures, and a
client library costs more of them than the gateway does.
"""

import asyncio
import math
import random
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"retry-after: *(\d+)", re.IGNORECASE)
PATIENCE_S = 60.0  # an answer that takes longer is none
STOOD_STILL_S = 0.5


@dataclass(frozen=True)
class Question:
    """What is asked of 127.0.0.1:`port`, and the body of the right answer (any, if None)."""

    port: int
    path: str
    body: bytes = b""
    right: bytes | None = None
    headers: str = ""  # whole lines
    tls: Callable[[], ssl.SSLContext] | None = None  # for each connection anew

    @property
    def message(self) -> bytes:
        method = "POST" if self.body else "GET"
        return (
            f"{method} {self.path} HTTP/1.1\r\nHost: localhost\r\n{self.headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
        ).encode() + self.body


class Outcome(NamedTuple):
    """What became of one request. `status` is 0 where no answer came; `why` tells then."""

    at: float  # when it left, seconds after the first one
    late_s: float  # the load's own fault: how long after its time it left
    seconds: float  # from then to its answer
    status: int
    right: bool
    retry_after: bool
    why: str


class Connection(asyncio.Protocol):
    """One at a time is asked and answered on it."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: str | None = None
        self.lost_at = 0.0  # on the event loop's clock
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = str(error or "closed")
        self.lost_at = asyncio.get_running_loop().time()
        self._look()

    async def ask(self, message: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer. Raises ConnectionError."""
        self.data = b""
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        await self._answered
        head, _, body = self.data.partition(b"\r\n\r\n")
        if b"connection: close" in head.lower():
            self.lost = "closed"
            self.transport.close()
        return head, body

    def _look(self) -> None:
        if self._answered is None or self._answered.done():
            return
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if end and length and len(body) >= int(length[1]):
            self._answered.set_result(None)
        elif self.lost is not None:
            self._answered.set_exception(ConnectionError(self.lost))


class Client:
    """Keeps connections that were answered for those who ask next."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._message = question.message
        self._idle: list[Connection] = []

    async def ask(self, at: float = 0.0, late_s: float = 0.0) -> Outcome:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(PATIENCE_S):
                connection = await self._connection()
                head, body = await connection.ask(self._message)
        except (OSError, TimeoutError) as error:
            return Outcome(at, late_s, clock() - began, 0, False, False, repr(error))
        if connection.lost is None:
            self._idle.append(connection)
        status, right = int(head[9:12]), self.question.right
        return Outcome(
            at,
            late_s,
            clock() - began,
            status,
            status == 200 and right in (None, body),
            RETRY_AFTER.search(head) is not None,
            "" if status == 200 else body.decode(),
        )

    def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.lost is None:
                return connection
        loop = asyncio.get_running_loop()
        tls = self.question.tls and self.question.tls()
        _, connection = await loop.create_connection(
            Connection, "127.0.0.1", self.question.port, ssl=tls
        )
        return connection


async def open_loop(
    question: Question, rate: float, seconds: float, seed: int, stop: asyncio.Event | None = None
) -> list[Outcome]:
    """A Poisson process of `rate` requests a second on the average, for so long or until `stop`."""
    draw = random.Random(seed)
    loop = asyncio.get_running_loop()
    client = Client(question)
    asked = []
    began = loop.time()
    at = draw.expovariate(rate)
    while at < seconds and not (stop and stop.is_set()):
        early = began + at - loop.time()
        await asyncio.sleep(max(early, 0))
        now = loop.time() - began
        asked.append(loop.create_task(client.ask(now, now - at)))
        at += draw.expovariate(rate)
    outcomes = await asyncio.gather(*asked)
    client.close()
    return outcomes


async def during(
    deed: Callable[[], None], question: Question, rate: float, seed: int
) -> list[Outcome]:
    """Requests at `rate` for as long as `deed` takes, which may block."""
    stop = asyncio.Event()
    asked = asyncio.create_task(open_loop(question, rate, math.inf, seed, stop))
    try:
        await asyncio.to_thread(deed)
    finally:
        stop.set()
    return await asked


async def closed_loop(question: Question, clients: int, seconds: float) -> list[Outcome]:
    """So many clients that ask again as soon as they are answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one() -> list[Outcome]:
        client, outcomes = Client(question), []
        while (at := loop.time() - began) < seconds:
            outcomes.append(await client.ask(at))
        client.close()
        return outcomes

    return [
        each for some in await asyncio.gather(*(one() for _ in range(clients))) for each in some
    ]


async def probe(question: Question, times: int, every_s: float = 1.0) -> list[Outcome]:
    """Each on a connection of its own, as a kubelet's."""
    outcomes = []
    for count in range(times):
        client = Client(question)
        outcomes.append(await client.ask(count * every_s))
        client.close()
        await asyncio.sleep(every_s)
    return outcomes


async def strangers(question: Question, stop: asyncio.Event, every_s: float) -> list[Outcome]:
    """One request after another until `stop`, each on a connection of its own."""
    loop = asyncio.get_running_loop()
    began, outcomes = loop.time(), []
    while not stop.is_set():
        client = Client(question)
        outcomes.append(await client.ask(loop.time() - began))
        client.close()
        await asyncio.sleep(every_s)
    return outcomes


def quantile(values: Sequence[float], share: float) -> float:
    """0.5 is the median; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if not each.right]


def stood_still(outcomes: Sequence[Outcome]) -> bool:
    """Whether somebody was answered so late that, where few ask, the machine itself stood still. A
    refusal then says no more than that: the gateway refuses where others wait for a second, which
    it cannot know from a moment in which nothing runs."""
    return max((each.seconds for each in outcomes), default=0.0) > STOOD_STILL_S


def told(outcomes: Sequence[Outcome]) -> str:
    """Statuses and times in one line."""
    statuses: dict[int, int] = {}
    for each in outcomes:
        statuses[each.status] = statuses.get(each.status, 0) + 1
    good = [each.seconds for each in outcomes if each.right]
    late = quantile([each.late_s for each in outcomes], 0.99)
    times = " ".join(f"p{int(q * 100)} {quantile(good, q) * 1e3:.1f}" for q in (0.5, 0.99, 1))
    return f"{len(outcomes)} asked, {statuses}; right ones, ms: {times}; load late {late * 1e3:.0f}"
