"""Requests that wait at the same time become one call to the model server.

A request that finds the line free goes at once, so a lone one pays nothing. Those that come while
as many calls are in flight as the limiter allows wait, and go together with the next: the busier
the model server is, the larger its batches, with no time to wait that anybody would have to tune.

Each part keeps its deadline, its cancellation and its error. A call that the model refuses is
asked again part by part, so that one bad request spoils no other.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.errors import (
    Busy,
    DeadlineExceeded,
    GatewayError,
    ModelServerFailed,
    ModelServerUnavailable,
    RejectedByModel,
)
from service.gateway.model_server import ATTEMPTS, BACKOFF_S, CONNECT_S, is_tried_again
from service.gateway.server import Server
from service.gateway.servers import Servers
from service.gateway.sizes import bytes_of
from service.gateway.traffic import Call, Inputs, Kind, Part, Sent, Slot, Traffic, call_for

WAITED_CALLS = 2  # where a call takes long, more than SLUICE_MAX_WAIT_S may be waited: so many
WAIT_SHARE = 0.45  # of the time that the call leaves: how long another waits is a guess
ANSWER_SHARE = 0.6  # of it all, for what is before the answer: the rate may be lower by then
MAX_MODELS = 1000  # whose traffic is remembered; names come from clients
# TensorFlow Serving's own words; what a model refuses may quote those of a request.
_BATCH_LIMIT = re.compile(r"Task size \d+ is larger than maximum input batch size (\d{1,9})\b")

Send = Callable[[Server, Call], Awaitable[Answer]]


class Joining:
    """Sends requests, joined where they wait. For one event loop.

    `send` makes one call to a server; `joins` says whether a model's requests are joined at all.
    """

    def __init__(
        self,
        servers: Servers,
        send: Send,
        *,
        max_rows: int,
        max_wait_s: float,
        joins: Callable[[str], bool],
    ) -> None:
        self._servers, self._send = servers, send
        self._max_rows, self._max_wait_s, self._joins = max_rows, max_wait_s, joins
        self._traffic: dict[str, Traffic] = {}
        self._running: set[asyncio.Task[None]] = set()
        servers.on_change(self._pump_all)

    def check_wait(self, model: str, left_s: float) -> None:
        """Raises Busy where a request that has `left_s` until its deadline had better not wait."""
        traffic = self._traffic.get(model)
        if not traffic:
            return
        usual_s = traffic.limiter.usual_s
        bound_s = min(
            max(self._max_wait_s, WAITED_CALLS * usual_s), WAIT_SHARE * (left_s - usual_s)
        )
        now = time.monotonic()
        for takes_s, most_s in (
            (traffic.wait_s(now, left_s), bound_s),
            (traffic.answered_s(), ANSWER_SHARE * left_s),
        ):
            if takes_s > most_s:
                raise Busy(
                    f'Requests for the model "{model}" wait for more than {max(most_s, 0):.2g} s; '
                    "try again in a moment",
                )

    async def ask(self, kind: Kind, inputs: Inputs, rows: int | None, caller: Caller) -> Answer:
        """The answer for these inputs; `rows` is None where they are not one row an instance.

        Raises RejectedByModel, ModelNotFound or a ModelServerError.
        """
        traffic = self._of(kind.model.name)
        caller.rows, size = rows or 1, bytes_of(inputs)
        server = None if traffic else self._free(traffic)
        if server is not None:
            caller.joined = caller.rows
            call = Call(kind, [inputs], caller.rows, size, caller, caller.time_s)
            slot = traffic.begin(server, time.monotonic(), caller.rows)
            return await self._call(traffic, slot, call)
        outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        joinable = self.is_joinable(kind, rows)
        part = Part(kind, inputs, caller.rows, size, caller, joinable, outcome)
        traffic.add(part)
        try:
            if not self._servers.well(part.since):
                await self._until_connected(caller)
                self._pump(traffic)
            return await outcome
        finally:
            outcome.cancel()  # where the caller left while there was nobody to ask
            traffic.leave(part)
            if part.sent is not None:
                part.sent.leave()

    def is_joinable(self, kind: Kind, rows: int | None) -> bool:
        """Whether a request of so many rows may go with others of its kind."""
        traffic = self._of(kind.model.name)
        joinable = rows is not None and kind.signature not in traffic.unjoinable
        return joinable and self._joins(kind.model.name)

    def spare(self, model: str) -> tuple[Server, int] | None:
        """A server that takes a call of this model now, for what can wait, and how many rows take
        no longer than its calls do. None while any request waits for any model, or where the next
        request would have to wait for this call."""
        if self.waiting():
            return None
        traffic = self._of(model)
        well = self._servers.well(time.monotonic())
        last = max(traffic.limiter.limit - 1, 1)
        server = self._servers.choose([each for each in well if traffic.calls_at(each) < last])
        rows = traffic.limiter.rows_within(traffic.limiter.usual_s)
        return None if server is None else (server, rows)

    def waiting(self) -> int:
        """Requests in line, those whose callers have left included."""
        return sum(len(traffic) for traffic in self._traffic.values())

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _until_connected(self, caller: Caller) -> None:
        await self._servers.until_known(min(CONNECT_S, max(caller.time_left_s(), 0)))

    def _of(self, model: str) -> Traffic:
        found = self._traffic.get(model)
        if found is None:
            if len(self._traffic) >= MAX_MODELS:
                self._forget()
            found = Traffic(self._max_rows, self._servers.standstill)
            self._traffic[model] = found
        return found

    def _forget(self) -> None:
        idle = [name for name, each in self._traffic.items() if not (each or each.in_flight)]
        for name in idle:
            del self._traffic[name]

    def _free(self, traffic: Traffic) -> Server | None:
        """A server that takes another call of this model now."""
        limit, well = traffic.limiter.limit, self._servers.well(time.monotonic())
        return self._servers.choose([each for each in well if traffic.calls_at(each) < limit])

    def _least_asked(self, traffic: Traffic) -> Server | None:
        """The one with the fewest calls of this model, those counted that have not left yet."""
        return min(self._servers.well(time.monotonic()), key=traffic.calls_at, default=None)

    def _pump_all(self) -> None:
        for traffic in list(self._traffic.values()):
            self._pump(traffic)

    def _pump(self, traffic: Traffic) -> None:
        """Send what waits, as far as calls are free."""
        while traffic:
            server = self._free(traffic)
            if server is None and not self._servers.well(time.monotonic()):
                server = self._servers.any()  # its failure says why nobody answers
            if server is None:
                return
            parts = traffic.take()
            if not parts:
                return
            self._start(traffic, server, parts)

    def _start(self, traffic: Traffic, server: Server, parts: Sequence[Part]) -> None:
        """Its slot is taken before its task runs, or one look at the line would send all of it."""
        now, call = time.monotonic(), call_for(parts)
        slot = traffic.begin(server, now, call.rows)
        task = asyncio.get_running_loop().create_task(self._run(traffic, slot, parts, call))
        self._running.add(task)
        task.add_done_callback(partial(self._ended, traffic, slot))
        sent = Sent(task, len(parts))
        for part in parts:
            part.sent, caller = sent, part.caller
            caller.queued_s, caller.joined = now - part.since, call.rows
            caller.trace.step("queue", part.since)

    def _ended(self, traffic: Traffic, slot: Slot, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not slot.used:  # it was cancelled before it ran
            self._end(traffic, slot)

    async def _run(self, traffic: Traffic, slot: Slot, parts: Sequence[Part], call: Call) -> None:
        began = time.monotonic()
        try:
            answer = await self._call(traffic, slot, call)
            answers = answer.shared_out([part.rows for part in parts])
        except GatewayError as error:
            self._fail(traffic, parts, error)
            return
        except Exception as error:  # a bug of ours must not leave callers waiting
            for part in parts:
                part.fail(error)
            return
        if answers is None:
            traffic.unjoinable.add(call.kind.signature)
            self._ask_alone(traffic, parts)
            return
        seconds = time.monotonic() - began
        for part, each in zip(parts, answers, strict=True):
            part.caller.upstream_s = seconds
            if part.is_wanted:
                part.outcome.set_result(each)

    def _fail(self, traffic: Traffic, parts: Sequence[Part], error: GatewayError) -> None:
        """The model's own refusals may be one part's fault; the server's are nobody's."""
        if len(parts) > 1 and isinstance(error, RejectedByModel | ModelServerFailed):
            limit = _BATCH_LIMIT.match(str(error))
            if limit and int(limit[1]) < sum(part.rows for part in parts):
                traffic.max_rows = max(1, int(limit[1]))
                for part in parts:
                    if part.is_wanted:
                        traffic.add(part)
                self._pump(traffic)
            else:
                self._ask_alone(traffic, parts)
            return
        for part in parts:
            part.fail(error)

    def _ask_alone(self, traffic: Traffic, parts: Sequence[Part]) -> None:
        """At once, beyond the limit too: they have had their turn. One after the other, the last
        would wait for a bad one's company as long as for all of them."""
        for part in parts:
            if part.is_wanted:
                part.joinable = False
                server = self._least_asked(traffic)
                if server is None:
                    traffic.add(part)
                else:
                    self._start(traffic, server, [part])
        self._pump(traffic)

    async def _call(self, traffic: Traffic, slot: Slot, call: Call) -> Answer:
        """One call, taken to another server where the first did not begin it."""
        for attempt in range(ATTEMPTS):
            try:
                return await self._attempt(traffic, slot, call)
            except ModelServerUnavailable as error:
                if attempt == ATTEMPTS - 1 or not is_tried_again(error, call.kind.model):
                    raise
            await asyncio.sleep(min(BACKOFF_S * 2**attempt, max(call.caller.time_left_s(), 0)))
            slot = traffic.begin(self._servers.choose() or slot.server, time.monotonic(), call.rows)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, traffic: Traffic, slot: Slot, call: Call) -> Answer:
        slot.used = True
        answered, goes_on_s = False, 0.0
        try:
            answer = await self._send(slot.server, call)
            answered = True
            return answer
        except (asyncio.CancelledError, DeadlineExceeded) as error:
            goes_on_s = traffic.give_up(slot, call, is_late=isinstance(error, DeadlineExceeded))
            raise
        finally:
            now = time.monotonic()
            call.caller.upstream_s = now - slot.began
            if answered:
                traffic.answered(slot, call, now)
            if goes_on_s:  # a model server does not stop what it has begun
                loop = asyncio.get_running_loop()
                loop.call_later(goes_on_s, self._end, traffic, slot)
            else:
                self._end(traffic, slot)

    def _end(self, traffic: Traffic, slot: Slot) -> None:
        traffic.end(slot)
        if traffic:
            self._pump(traffic)
