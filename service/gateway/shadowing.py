"""The next version, asked what the live one has answered: for nobody, and so after everybody.

    event loop   is it one of those? → in line, while there is room       a few microseconds
                 once its answer has gone out, a call is free and nobody waits for one:
                 as many as go together → one call → each answer compared → counted

No request waits for it, or is refused for it. What is in line takes no more than its share of a
worker's places and bytes (SLUICE_SHADOW_ROOM), and the calls no more than SHARE_OF_TIME of what the
others leave: these find the machine as it was. What has no room is dropped, and counted.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from service.gateway.answer import Answer
from service.gateway.asking import Question
from service.gateway.caching import NOT_ASKED
from service.gateway.caller import Caller
from service.gateway.calls import Calls
from service.gateway.errors import (
    Busy,
    GatewayError,
    ModelNotFound,
    ModelServerOverloaded,
    ModelServerUnavailable,
    RejectedByModel,
)
from service.gateway.forwarded import Forwarded, Unread
from service.gateway.rollouts import Rollouts
from service.gateway.routing import Route
from service.gateway.server import Server
from service.gateway.settings import Settings
from service.gateway.shadow_line import Pair, ShadowLine, are_alike
from service.gateway.threads import LARGE
from service.gateway.traffic import Call, Kind
from service.gateway.witness import Witness
from service.replay.changes import Change, Reply, Tolerance, changes
from sluice.wire.model_ref import ModelRef
from sluice.wire.reasons import is_out_of_memory

SHARE_OF_TIME = 0.1  # that the others leave; of all workers together
LOOK_EVERY_S = 0.01  # whether a call is free
# Whose fault they are is not the version's, but for a server's that was lost under the call.
_NO_ANSWER = (ModelNotFound, ModelServerUnavailable, ModelServerOverloaded, Busy)

log = logging.getLogger(__name__)


class Shadow:
    """Of one worker. For one event loop."""

    def __init__(
        self, settings: Settings, rollouts: Rollouts, witness: Witness, calls: Calls
    ) -> None:
        self._rollouts, self._witness, self._calls = rollouts, witness, calls
        self._timeout_s, self._max_rows = settings.request_timeout_s, settings.max_joined_rows
        self._share = SHARE_OF_TIME / settings.workers
        self._line = ShadowLine(
            int(settings.shadow_room * settings.places),
            int(settings.shadow_room * settings.max_bytes_in_flight),
        )
        self._running: asyncio.Task[None] | None = None

    def offer(
        self,
        route: Route,
        question: Question | Forwarded,
        answer: Answer | Unread,
        caller: Caller,
    ) -> None:
        """A version has answered a request: ask the next one too, where that is wanted."""
        rollout = route.rollout
        if rollout is None or route.is_canary or caller.cache in NOT_ASKED:
            return
        if question.model != route.model or random.random() >= rollout.shadow:
            return
        size = question.size + answer.size
        if not self._line.has_room(size):
            self._witness.not_asked(route.model.name, rollout, "room")
            return
        pair = Pair(
            rollout,
            question,
            answer.to_keep() if caller.joined > caller.rows else answer,
            caller,
            caller.upstream_s,
            max(caller.joined, 1),
            size,
            self._kind(question),
        )
        self._line.add(pair)
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    def _kind(self, question: Question | Forwarded) -> Kind | None:
        """Of those that can go with it, if any can."""
        if isinstance(question, Forwarded):
            return None
        joinable = self._calls.joining.is_joinable(question.kind, question.rows)
        return question.kind if joinable else None

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while self._line:
            await asyncio.sleep(LOOK_EVERY_S)
            self._drop_what_is_over()
            if not self._line or not self._line.first.caller.answered:
                continue
            spare = self._calls.joining.spare(self._line.first.model)
            if spare is None:
                continue
            server, most_rows = spare
            began = time.monotonic()
            pairs, copies = self._line.take(min(most_rows, self._max_rows))
            try:
                await self._ask(server, pairs, copies)
            except Exception:  # a bug of ours: the log gets the trace, the others their turn
                log.exception("Comparing what %s answers failed", pairs[0].model)
            await self._rest(pairs[0].model, (time.monotonic() - began) * (1 / self._share - 1))

    async def _rest(self, model: str, seconds: float) -> None:
        """Until a call of the model has been free for so long, as far as looks tell. The time of
        the others does not count: the busier they are, the more of them one of ours holds up."""
        while seconds > 0:
            await asyncio.sleep(LOOK_EVERY_S)
            self._drop_what_is_over()
            if self._calls.joining.spare(model) is not None:
                seconds -= LOOK_EVERY_S

    def _drop_what_is_over(self) -> None:
        """Those of a rollout that asks no longer."""
        while self._line:
            pair = self._line.first
            now = self._rollouts.of(pair.model)
            if now is not None and now.id == pair.rollout.id and now.shadow:
                return
            self._line.leave(pair)
            self._witness.not_asked(pair.model, pair.rollout, "over")

    async def _ask(self, server: Server, pairs: Sequence[Pair], copies: int = 0) -> None:
        """Ask the next version, and count how its answers differ."""
        began = time.monotonic()
        asked = [*pairs, *copies * [pairs[0]]]
        try:
            answers = await self._answers(server, asked)
        except GatewayError as error:
            if len(asked) == 1 or _is_no_answer(error):
                await self._failed(pairs, error, time.monotonic() - began)
                return
            answers = None
        if answers is None:
            for pair in pairs:
                await self._ask(server, [pair])
            return
        seconds, rows = time.monotonic() - began, sum(each.rows for each in asked)
        timed = are_alike(rows, pairs[0].joined)
        for pair, each in zip(pairs, answers, strict=False):
            await self._compare(pair, partial(_reply, each, seconds), timed)
            timed = False  # one call is one time, however many it has answered
            await asyncio.sleep(0)  # whoever came meanwhile goes first

    async def _failed(self, pairs: Sequence[Pair], error: GatewayError, seconds: float) -> None:
        """Of a call without an answer. A server that was lost under it may have died of one of its
        questions: that counts once, whatever else the call held."""
        is_lost = isinstance(error, ModelServerUnavailable) and error.begun
        away = pairs
        if is_lost or not _is_no_answer(error):
            reply = Reply({}, None, seconds, type(error).__name__, str(error))
            await self._compare(pairs[0], lambda: reply, False)
            away = pairs[1:]
        for pair in away:
            self._witness.not_asked(pair.model, pair.rollout, "away")

    async def _answers(
        self, server: Server, pairs: Sequence[Pair]
    ) -> Sequence[Answer | Unread] | None:
        """Those of the next version in one call, as Answer.shared_out. Raises GatewayErrors."""
        first, model = pairs[0].question, ModelRef(pairs[0].model, pairs[0].rollout.next)
        if isinstance(first, Forwarded):
            caller = Caller.within(self._timeout_s)
            return [await self._calls.send_on(server, first, model, caller)]
        questions = [each.question for each in pairs if isinstance(each.question, Question)]
        try:
            return await self._together(server, questions, model)
        except RejectedByModel:
            meant = first.as_meant if len(questions) == 1 else None
            if meant is None:
                raise
            return await self._together(server, [meant], model)

    async def _together(
        self, server: Server, questions: Sequence[Question], model: ModelRef
    ) -> list[Answer] | None:
        """One call for questions of one kind, to this version."""
        rows, inputs = [each.rows or 1 for each in questions], [each.inputs for each in questions]
        call = Call(
            questions[0].kind._replace(model=model),
            inputs,
            sum(rows),
            sum(each.size for each in questions),
            Caller.within(self._timeout_s),
        )
        answer = await self._calls.send(server, call, weighs=False)
        return answer.shared_out(rows)

    async def _compare(self, pair: Pair, ours: Callable[[], Reply], timed: bool) -> None:
        threads = self._calls.threads
        # A message of many small ones takes longer to read than its size tells.
        size = LARGE + 1 if isinstance(pair.answer, Unread) else pair.size
        live, said, found = await threads.run_if_large(size, _compared, pair, ours)
        self._witness.compared(pair, live, said, found, timed=timed)


def _is_no_answer(error: GatewayError) -> bool:
    """Whether the version has not been heard. One that has no memory for a request has."""
    if isinstance(error, ModelServerOverloaded) and is_out_of_memory(str(error)):
        return False
    return isinstance(error, _NO_ANSWER)


def _reply(answer: Answer | Unread, seconds: float) -> Reply:
    return Reply(answer.outputs, answer.version, seconds)


def _compared(pair: Pair, ours: Callable[[], Reply]) -> tuple[Reply, Reply, list[Change]]:
    """What both have said, and the changes between the two."""
    live, said = _reply(pair.answer, pair.seconds), ours()
    return live, said, changes(live, said, Tolerance())
