"""Versions on trial: whose turn it is to answer, how each does, and what the next one would say."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from service.gateway.caching import NOT_ASKED
from service.gateway.caller import Caller
from service.gateway.calls import Calls
from service.gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    ModelServerError,
    ModelServerUnavailable,
)
from service.gateway.rollouts import Rollouts
from service.gateway.routing import Route, described, is_absent, route
from service.gateway.settings import Settings
from service.gateway.shadowing import Shadow
from service.gateway.witness import Witness
from sluice.wire.model_ref import ModelRef
from sluice.wire.tensors import Array

Result = TypeVar("Result")


class Trials:
    """Of one worker. For one event loop."""

    def __init__(self, settings: Settings, calls: Calls, witness: Witness) -> None:
        self._witness = witness
        self.rollouts = Rollouts(witness)
        self.shadow = Shadow(settings, self.rollouts, witness, calls)

    async def close(self) -> None:
        await self.shadow.close()
        await self.rollouts.close()
        await asyncio.to_thread(self._witness.close)

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
                self._gone_round(way, error)
                return answered
            if _may_be_its_own(error):
                self._witness.failed(way)
            raise
        except asyncio.CancelledError:
            if caller.time_left_s() <= 0:
                self._witness.failed(way)
            raise
        if way.rollout is not None and caller.cache not in NOT_ASKED:
            # Without what a version that is asked seldom pays for its signatures, each time anew.
            seconds = caller.called_s or time.monotonic() - began
            self._witness.answered(way, seconds, outputs(answered))
        return answered

    def _gone_round(self, way: Route, error: GatewayError) -> None:
        """A version that is absent has answered nothing wrong."""
        if not is_absent(error):
            self._witness.failed(way)
        elif way.rollout is not None:
            self._witness.not_asked(way.model.name, way.rollout, "away")


def _may_be_its_own(error: GatewayError) -> bool:
    """Whether an error may be the fault of the version that was asked, whichever it was: a server
    may have died of a call that it had begun."""
    if isinstance(error, ModelServerUnavailable):
        return error.begun
    return isinstance(error, ModelServerError | DeadlineExceeded)
