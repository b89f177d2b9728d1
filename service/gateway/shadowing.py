"""The next version, asked what the live one has answered: for nobody, and so after everybody.

    event loop   is it one of those? → in line, while there is room       a few microseconds
                 once its answer has gone out, a call is free and nobody waits for one:
                 as many as go together → one call → each answer compared → counted

No request waits for it, or is refused for it. What is in line takes no more than its share of a
worker's places and bytes (SLUICE_SHADOW_ROOM), and the calls no more than SHARE_OF_TIME: the other
requests find the machine as it was. What has no room is dropped, and counted.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from service.gateway.answer import Answer
from service.gateway.caching import NOT_ASKED
from service.gateway.caller import Caller
from service.gateway.capturing import AnyCapture
from service.gateway.errors import (
    Busy,
    GatewayError,
    ModelNotFound,
    ModelServerOverloaded,
    ModelServerUnavailable,
    RejectedByModel,
)
from service.gateway.joining import Joining, shared_out
from service.gateway.rollouts import Rollouts
from service.gateway.routing import Route
from service.gateway.server import Server
from service.gateway.settings import Settings
from service.gateway.signatures import validate
from service.gateway.traffic import Call, Inputs, Kind, bytes_of, kind_of
from service.gateway.witness import Witness
from service.replay.changes import Reply, Tolerance, changes
from service.rollout.counting import count_pair
from sluice.wire.model_ref import ModelRef
from sluice.wire.rollouts import Rollout
from sluice.wire.signature import Signature

SHARE_OF_TIME = 0.1
LOOK_EVERY_S = 0.01  # whether a call is free
# Whose fault they are is not the version's: there is nobody to compare.
_NO_ANSWER = (ModelNotFound, ModelServerUnavailable, ModelServerOverloaded, Busy)

log = logging.getLogger(__name__)

Send = Callable[[Server, Call], Awaitable[Answer]]
Work = Callable[..., Awaitable[Any]]


class Counts(Protocol):
    """Where it is counted what became of the requests."""

    def shadowed(self, model: str, outcome: str) -> None:
        """One that was to be asked again: `same` or `changed`, or not asked for want of `room`, as
        the next version was `away`, or as the rollout was `over`."""

    def changed(self, model: str, kind: str) -> None:
        """Of those that are changed, one with a change of this kind."""

    def canary_failed(self, model: str) -> None:
        """A request that the next version was to answer, and failed."""


class NoCounts:
    """Counts nothing."""

    def shadowed(self, model: str, outcome: str) -> None:
        pass

    def changed(self, model: str, kind: str) -> None:
        pass

    def canary_failed(self, model: str) -> None:
        pass


NO_COUNTS = NoCounts()


class Asked(NamedTuple):
    """A request as it was asked. `rows` is None where the inputs are not one row an instance;
    `signature` the one that the client meant, of which that of `kind` may be a narrower form."""

    kind: Kind
    inputs: Inputs
    rows: int | None
    signature: Signature

    @property
    def as_meant(self) -> "Asked | None":
        """The same by the signature that the client meant; None where it is so already."""
        signature = self.signature
        if signature.name == self.kind.signature:
            return None
        inputs = validate(signature, dict(self.inputs))
        kind = kind_of(self.kind.model, signature.name, self.kind.outputs, inputs)
        return self._replace(kind=kind, inputs=inputs)


@dataclass(eq=False, slots=True)
class _Pair:
    """A request that was answered, and how: `seconds` and `joined` rows of the call."""

    rollout: Rollout
    asked: Asked
    answer: Answer
    caller: Caller
    seconds: float
    joined: int
    size: int
    alone: bool

    @property
    def model(self) -> str:
        return self.asked.kind.model.name

    @property
    def rows(self) -> int:
        return self.asked.rows or 1


class Shadow:
    """Of one worker. For one event loop.

    `send` makes one call; `work(size, function, *arguments)` what may be too long for the loop;
    `samples` keeps the requests whose answers differ.
    """

    def __init__(
        self,
        settings: Settings,
        rollouts: Rollouts,
        witness: Witness,
        joining: Joining,
        send: Send,
        work: Work,
        counts: Counts,
        samples: AnyCapture,
    ) -> None:
        self._rollouts, self._witness, self._joining = rollouts, witness, joining
        self._send, self._work, self._counts, self.samples = send, work, counts, samples
        self._most = int(settings.shadow_room * settings.places)
        self._most_bytes = int(settings.shadow_room * settings.max_bytes_in_flight)
        self._timeout_s, self._max_rows = settings.request_timeout_s, settings.max_joined_rows
        self._line: deque[_Pair] = deque()
        self._held = 0  # bytes
        self._running: asyncio.Task[None] | None = None
        self._turn = 0

    def offer(
        self,
        route: Route,
        asked: Asked,
        answer: Answer,
        caller: Caller,
    ) -> None:
        """A version has answered a request: ask the next one too, where that is wanted."""
        rollout = route.rollout
        if rollout is None or route.is_canary or caller.cache in NOT_ASKED:
            return
        if random.random() >= rollout.shadow:
            return
        kind = asked.kind
        size = bytes_of(asked.inputs) + bytes_of(answer.outputs)
        if len(self._line) >= self._most or self._held + size > self._most_bytes:
            self._witness.of(kind.model.name, rollout).dropped += 1
            self._counts.shadowed(kind.model.name, "room")
            return
        pair = _Pair(
            rollout,
            asked,
            answer,
            caller,
            caller.upstream_s,
            caller.joined,
            size,
            alone=not self._joining.is_joinable(kind, asked.rows),
        )
        self._line.append(pair)
        self._held += size
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while self._line:
            await asyncio.sleep(LOOK_EVERY_S)
            self._drop_what_is_over()
            if not self._line or not self._line[0].caller.answered:
                continue
            spare = self._joining.spare(self._line[0].model)
            if spare is None:
                continue
            server, most_rows = spare
            began = time.monotonic()
            pairs = self._take(min(most_rows, self._max_rows))
            try:
                await self._ask(server, pairs)
            except Exception:  # a bug of ours: the log gets the trace, the others their turn
                log.exception("Comparing what %s answers failed", pairs[0].model)
            await asyncio.sleep((time.monotonic() - began) * (1 / SHARE_OF_TIME - 1))

    def _drop_what_is_over(self) -> None:
        """Those of a rollout that asks no longer."""
        while self._line:
            pair = self._line[0]
            now = self._rollouts.of(pair.model)
            if now is not None and now.id == pair.rollout.id and now.shadow:
                return
            self._leave(pair)
            self._counts.shadowed(pair.model, "over")

    def _take(self, most_rows: int) -> list[_Pair]:
        """The first, and those after it that can go with it. Every other turn the first goes as its
        like did, so that the times of the two calls say something."""
        first, self._turn = self._line[0], self._turn + 1
        taken, rows = [first], first.rows
        is_compared = self._turn % 2 and _are_alike(first.joined, rows)
        for pair in () if first.alone or is_compared else list(self._line)[1:]:
            if (
                pair.asked.kind != first.asked.kind
                or pair.rollout.id != first.rollout.id
                or pair.alone
            ):
                continue
            if not pair.caller.answered or rows + pair.rows > most_rows:
                break
            taken.append(pair)
            rows += pair.rows
        for pair in taken:
            self._leave(pair)
        return taken

    def _leave(self, pair: _Pair) -> None:
        self._line.remove(pair)
        self._held -= pair.size

    async def _ask(self, server: Server, pairs: Sequence[_Pair]) -> None:
        """Ask the next version, and count how its answers differ."""
        began = time.monotonic()
        try:
            answers = await self._answers(server, [pair.asked for pair in pairs], pairs[0].rollout)
        except _NO_ANSWER:
            for pair in pairs:
                self._counts.shadowed(pair.model, "away")
            return
        except GatewayError as error:
            answers = None
            if len(pairs) == 1:
                seconds, name = time.monotonic() - began, type(error).__name__
                await self._compare(pairs[0], Reply({}, None, seconds, name, str(error)), 1)
                return
        if answers is None:
            for pair in pairs:
                await self._ask(server, [pair])
            return
        seconds, rows = time.monotonic() - began, sum(pair.rows for pair in pairs)
        for pair, each in zip(pairs, answers, strict=True):
            await self._compare(pair, Reply(each.outputs, each.version, seconds), rows)
            await asyncio.sleep(0)  # whoever came meanwhile goes first

    async def _answers(
        self, server: Server, asked: Sequence[Asked], rollout: Rollout
    ) -> list[Answer] | None:
        """Those of the next version in one call, as `shared_out`. Raises GatewayErrors."""
        first = asked[0]
        kind = first.kind._replace(model=ModelRef(first.kind.model.name, rollout.next))
        caller = Caller.within(self._timeout_s)
        inputs = [each.inputs for each in asked]
        rows = [each.rows or 1 for each in asked]
        call = Call(kind, inputs, sum(rows), sum(map(bytes_of, inputs)), caller)
        try:
            answer = await self._send(server, call)
        except RejectedByModel:
            meant = first.as_meant if len(asked) == 1 else None
            if meant is None:
                raise
            return await self._answers(server, [meant], rollout)
        return shared_out(answer, rows)

    async def _compare(self, pair: _Pair, after: Reply, rows: int) -> None:
        before = Reply(pair.answer.outputs, pair.answer.version, pair.seconds)
        found = await self._work(pair.size, changes, before, after, Tolerance())
        model = pair.model
        evidence = self._witness.of(model, pair.rollout)
        count_pair(evidence, before, after, found, timed=_are_alike(rows, pair.joined))
        self._counts.shadowed(model, "changed" if found else "same")
        for kind in {change.kind for change in found}:
            self._counts.changed(model, kind)
        if found:
            self.samples.answered(
                pair.asked.kind, pair.asked.inputs, pair.answer.version, pair.caller
            )


def _are_alike(rows: int, other: int) -> bool:
    """Whether calls of so many rows take about as long."""
    return rows.bit_length() == other.bit_length()
