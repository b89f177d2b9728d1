"""Versions on trial: whose turn it is to answer, how each does, and what the next one would say."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from service.gateway.caching import NOT_ASKED
from service.gateway.caller import Caller
from service.gateway.capturing import AnyCapture
from service.gateway.errors import DeadlineExceeded, GatewayError, ModelServerFailed
from service.gateway.joining import Joining
from service.gateway.rollouts import Rollouts
from service.gateway.routing import Route, described, route
from service.gateway.settings import Settings
from service.gateway.shadowing import Counts, Send, Shadow, Work
from service.gateway.witness import Witness
from service.rollout.counting import count
from service.rollout.evidence import Answers
from sluice.wire.model_ref import ModelRef
from sluice.wire.tensors import Array

Result = TypeVar("Result")
_OWN_FAULTS = (ModelServerFailed, DeadlineExceeded)


class Trials:
    """Of one worker. For one event loop."""

    def __init__(
        self,
        settings: Settings,
        joining: Joining,
        send: Send,
        work: Work,
        counts: Counts,
        samples: AnyCapture,
    ) -> None:
        repository = Path(settings.model_repository) if settings.model_repository else None
        self._witness = Witness(repository)
        self.rollouts = Rollouts(repository, self._witness)
        self.shadow = Shadow(
            settings, self.rollouts, self._witness, joining, send, work, counts, samples
        )
        self._counts = counts

    async def close(self) -> None:
        await self.shadow.close()
        await asyncio.to_thread(self._witness.write, self._witness.due())
        await asyncio.to_thread(self.shadow.samples.close)

    def route(self, model: ModelRef, caller: Caller) -> Route:
        """Who answers. Raises MalformedRequest."""
        return route(model, self.rollouts.of(model.name), caller)

    def described(self, model: ModelRef, caller: Caller) -> Route:
        """Who says what the model takes and gives. Raises MalformedRequest."""
        return described(model, self.rollouts.of(model.name), caller)

    async def ask(
        self,
        way: Route,
        caller: Caller,
        ask: Callable[[ModelRef], Awaitable[Result]],
        outputs: Callable[[Result], Mapping[str, Array]] = lambda _: {},
    ) -> Result:
        """What `ask` answers of the version whose turn it is, or of the one instead. Raises what it
        raises."""
        began = time.monotonic()
        try:
            answered = await ask(way.model)
        except GatewayError as error:
            if way.instead is not None and way.goes_round(error):
                answered = await ask(way.instead)
                self._fail(way)
                return answered
            if isinstance(error, _OWN_FAULTS):
                self._fail(way)
            raise
        except asyncio.CancelledError:
            if caller.time_left_s() <= 0:
                self._fail(way)
            raise
        of = self._answers(way)
        if of is not None and caller.cache not in NOT_ASKED:
            count(of, time.monotonic() - began - caller.decode_s, outputs(answered))
        return answered

    def _fail(self, way: Route) -> None:
        if (of := self._answers(way)) is not None:
            of.fail()
            if way.is_canary:
                self._counts.canary_failed(way.model.name)

    def _answers(self, way: Route) -> Answers | None:
        if way.rollout is None:
            return None
        evidence = self._witness.of(way.model.name, way.rollout)
        return evidence.canary if way.is_canary else evidence.stable
