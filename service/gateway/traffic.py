"""The requests for one model that wait, in lines of those that can be joined.

Kind      what requests must have in common: model, signature, outputs, dtypes, inner shapes
Call      the rows of one request, or of several of a kind, that are sent together
Slot      one call's place among those that a server may be asked at once
Part      one request in line, with its rows, its caller and its outcome
Traffic   the lines of one model, so that a slow model never takes another's calls
"""

import asyncio
import copy
import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.errors import DeadlineExceeded
from service.gateway.limiter import Limiter
from service.gateway.server import Server
from service.gateway.standstill import Standstill
from sluice.wire.model_ref import ModelRef
from sluice.wire.tensors import Array

MAX_JOINED_BYTES = 8 << 20  # of a call's inputs: more is copied for longer than joining saves
CALL_SHARE = 0.25  # of a request's time from its first byte to its deadline, for the call itself

Inputs = Mapping[str, Array]


class Kind(NamedTuple):
    """Requests of the same kind can be joined; `forms` are the inputs' dtypes and inner shapes."""

    model: ModelRef
    signature: str
    outputs: tuple[str, ...]
    forms: tuple[tuple[str, np.dtype, tuple[int, ...]], ...]


def kind_of(model: ModelRef, signature: str, outputs: tuple[str, ...], inputs: Inputs) -> Kind:
    """The kind of a request whose inputs have their rows first."""
    forms = tuple((name, array.dtype, array.shape[1:]) for name, array in inputs.items())
    return Kind(model, signature, outputs, forms)


class Call(NamedTuple):
    """One call, of the rows of all `inputs`: `size` bytes, on behalf of `caller`; the most patient
    of them has `time_s` in all."""

    kind: Kind
    inputs: Sequence[Inputs]
    rows: int
    size: int
    caller: Caller
    time_s: float = math.inf


@dataclass(eq=False, slots=True)
class Sent:
    """The task of a call, and how many wait for it: once nobody does, it ends, and does not keep
    the model server."""

    task: asyncio.Task[None]
    waited_for_by: int

    def leave(self) -> None:
        self.waited_for_by -= 1
        if not self.waited_for_by:
            self.task.cancel()


@dataclass(eq=False, slots=True)
class Part:
    """One request. `joinable` once it has not been refused together with others."""

    kind: Kind
    inputs: Inputs
    rows: int
    size: int  # bytes
    caller: Caller
    joinable: bool
    outcome: asyncio.Future[Answer]
    since: float = 0.0  # when it began to wait, on the monotonic clock
    in_line: bool = False
    sent: Sent | None = None

    @property
    def is_wanted(self) -> bool:
        return not self.outcome.done()

    def fail(self, error: Exception) -> None:
        """With an error of its own: a traceback grows in every task that it passes through."""
        if self.is_wanted:
            own = copy.copy(error)
            own.__cause__ = error.__cause__
            self.outcome.set_exception(own)


def call_for(parts: Sequence[Part]) -> Call:
    """The one call of all of them."""
    inputs = [part.inputs for part in parts]
    rows, size = sum([part.rows for part in parts]), sum([part.size for part in parts])
    time_s = max(part.caller.time_s for part in parts)
    return Call(parts[0].kind, inputs, rows, size, _caller_for(parts), time_s)


def _caller_for(parts: Sequence[Part]) -> Caller:
    """On whose behalf a joined call is made: until the last of its parts is of no use."""
    if len(parts) == 1:
        return parts[0].caller
    deadline = max(part.caller.deadline for part in parts)
    first = parts[0].caller
    trace = first.trace.joined([part.caller.trace for part in parts])
    return Caller(deadline, metadata=first.metadata, trace=trace)


@dataclass(eq=False, slots=True)
class Slot:
    """One of the calls that a server may be asked at once, from `began` on. `company`: how many
    were in flight there then, this one included. `like_s`: what calls of as many rows take, of one
    that has nothing beside it or behind it. `used` once the call has really begun."""

    server: Server
    began: float
    rows: int
    company: int
    like_s: float
    used: bool = False


class Traffic:
    """The requests for one model: those in line, by kind, and its calls in flight, by server. What
    a `standstill` of the gateway took of a call's time says nothing of the model server."""

    def __init__(self, max_rows: int, standstill: Standstill) -> None:
        self.max_rows = self._joined_rows = max_rows
        self._standstill = standstill
        self.limiter = Limiter(max_rows)
        # In line, of those that are still wanted: the rows, and the parts that have so many that
        # each is a call of its own, by their rows, rounded to a power of two.
        self.rows = 0
        self._large: Counter[int] = Counter()
        self.in_flight: dict[Server, int] = {}
        self._slots: list[Slot] = []  # of the calls in flight
        self.unjoinable: set[str] = set()  # signatures whose answers are not one row for each
        self._lines: dict[object, deque[Part]] = {}  # in the order in which they are served

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, part: Part) -> None:
        part.since, part.in_line = time.monotonic(), True
        self._count(part, 1)
        if not self:
            self.limiter.begin_to_wait(part.since)
        key: object = part.kind if part.joinable else part
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
        line.append(part)

    def leave(self, part: Part) -> None:
        """Of a part that nobody waits for any more, unless it is taken. What is left of it stays
        in line until that moves, and what it is about is counted nowhere any more."""
        if part.in_line:
            self._go(part)
            part.inputs = {}

    def _go(self, part: Part) -> None:
        if part.in_line:
            part.in_line = False
            self._count(part, -1)

    def _count(self, part: Part, by: int) -> None:
        if part.rows > self._joined_rows:
            self._large[1 << (part.rows.bit_length() - 1)] += by
        else:
            self.rows += by * part.rows

    def take(self) -> list[Part]:
        """The parts of the next call, those left out that nobody waits for any more, or that it
        would come too late for; [] where none is left. The lines take turns."""
        now = time.monotonic()
        too_late = self.limiter.too_late(now)
        while self._lines:
            key = next(iter(self._lines))
            line = self._lines.pop(key)
            parts: list[Part] = []
            rows = size = max_rows = 0
            while line:
                part = line[0]
                if part.caller.deadline <= too_late:
                    part.fail(DeadlineExceeded("The request waited until it was too late for it"))
                if part.is_wanted:
                    if not parts:
                        max_rows = self._rows_for(part.caller.time_s)
                    elif rows + part.rows > max_rows or size + part.size > MAX_JOINED_BYTES:
                        break
                    parts.append(part)
                    rows, size = rows + part.rows, size + part.size
                self._go(part)
                line.popleft()
            if line:
                self._lines[key] = line
            if parts:
                return parts
        return []

    def wait_s(self, now: float, time_s: float) -> float:
        """How long a request that comes now, with so long in all, would wait, as far as can be
        told, seconds: until the next call leaves, and where that is full, as long as the rows and
        the large parts before it take to be answered."""
        leaves_s = self._next_leaves_s(now) + self._large_s()
        if len(self._lines) == 1 and self.rows < self._rows_for(time_s):
            return leaves_s
        return leaves_s + self.limiter.drain_s(self.rows, len(self._lines))

    def answered_s(self) -> float:
        """Until all that is in flight and in line is answered, seconds; 0: it cannot be told."""
        in_flight = sum(slot.rows for slot in self._slots if slot.rows <= self._joined_rows)
        return self.limiter.answered_s(in_flight + self.rows)

    def _large_s(self) -> float:
        """How long the large parts in line take, of the sizes that are known: by Little's law, as
        many at once as there are calls in flight."""
        times_s = [n * self.limiter.like_s(rows) for rows, n in self._large.items() if n]
        return sum(each for each in times_s if each < math.inf) / max(len(self._slots), 1)

    def _next_leaves_s(self, now: float) -> float:
        """Until one of the calls in flight makes room, when it has taken as long as they do. One
        that is late already is believed to be late by as much again."""
        usual_s, awake_since = self.limiter.usual_s, self._standstill.ended(now)
        if self._slots:
            return min(
                abs(max(slot.began, awake_since) + min(slot.like_s, usual_s) - now)
                for slot in self._slots
            )
        since = min(line[0].since for line in self._lines.values())
        return now - max(since, awake_since)

    def _rows_for(self, time_s: float) -> int:
        """Of a call for requests that have so long in all. It is to take no more than its share: of
        what is late for being too large, everything is lost."""
        return min(self.max_rows, self.limiter.rows_to_try(CALL_SHARE * time_s))

    def calls_at(self, server: Server) -> int:
        """Those in flight there, and those that are about to be."""
        return self.in_flight.get(server, 0)

    def begin(self, server: Server, now: float, rows: int) -> Slot:
        """Of a call of so many rows that is made now: from here on it counts. After an overload
        small ones come, which take no longer than before it, whatever all calls took lately."""
        like_s = math.inf if self or self._slots else self.limiter.like_s(rows)
        count = self.in_flight[server] = self.calls_at(server) + 1
        slot = Slot(server, now, rows, count, like_s)
        self._slots.append(slot)
        return slot

    def answered(self, slot: Slot, call: Call, now: float) -> None:
        """A call in flight has been."""
        is_spoilt = self._standstill.spoils(slot.began, now)
        # Its rows are not counted, so neither is the time until now.
        self.limiter.count_from(now if is_spoilt else self._standstill.ended(now))
        if is_spoilt:
            return
        company, took_s = max(slot.company, self.in_flight[slot.server]), now - slot.began
        self.limiter.record(call.rows, took_s, company, now, time_s=call.time_s, waiting=bool(self))

    def give_up(self, slot: Slot, call: Call, *, is_late: bool) -> float:
        """For how much longer a server works at a call that nobody waits for any more, seconds:
        those who did have hung up, where it is not `is_late`, and its time not over."""
        now, deadline = time.monotonic(), call.caller.deadline
        if slot.began >= deadline:  # it was not sent
            return 0.0
        if self._standstill.spoils(slot.began, now):  # its answer may be there
            return 0.0
        hung_up = now < deadline and not is_late
        return self.limiter.give_up(
            call.rows, now - slot.began, time_s=call.time_s, hung_up=hung_up
        )

    def end(self, slot: Slot) -> None:
        self._slots.remove(slot)
        left = self.in_flight.pop(slot.server) - 1
        if left:
            self.in_flight[slot.server] = left
