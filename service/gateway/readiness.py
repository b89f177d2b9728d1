"""Whether this gateway can serve, by what the model server says of the named models."""

import asyncio
from typing import NamedTuple

from service.gateway.caller import Caller
from service.gateway.errors import DeadlineExceeded, ModelServerError
from service.gateway.predictions import Predictions
from sluice.wire.contract import State

PROBE_TIMEOUT_S = 2.0
# Whether this name is served does not matter: any answer shows that the model server is there.
_ANY_MODEL = "-"
ASK_THE_ADMIN_PORT = "the admin port says why (SLUICE_ADMIN_PORT)"


class Readiness(NamedTuple):
    """The verdict, why, and each named model's part in it."""

    ready: bool
    reason: str
    models: dict[str, bool]

    def to_strangers(self) -> "Readiness":
        """The same without the names of models, and of servers that do not answer."""
        return Readiness(self.ready, self.reason if self.ready else ASK_THE_ADMIN_PORT, {})


async def readiness(predictions: Predictions) -> Readiness:
    """Ready when a model is AVAILABLE at the model server (or all that are named, by
    `ready_when`); when it answers, where none is named."""
    state, remark = await _state(predictions), predictions.remark()
    return state._replace(reason=f"{state.reason}; {remark}") if remark else state


async def _state(predictions: Predictions) -> Readiness:
    names = predictions.model_list.names()
    if predictions.model_list.problem:
        return Readiness(False, predictions.model_list.problem, {})
    try:
        found = await asyncio.gather(*(_is_available(predictions, name) for name in names))
        if not names:
            await predictions.versions_of(_ANY_MODEL, Caller.within(PROBE_TIMEOUT_S))
    except (ModelServerError, DeadlineExceeded) as error:
        return Readiness(False, str(error), {})
    available = dict(zip(names, found, strict=True))
    if not names:
        return Readiness(True, "the model server answers; no model is named", {})
    enough = all if predictions.settings.ready_when == "all" else any
    missing = [name for name, there in available.items() if not there]
    if enough(available.values()):
        return Readiness(
            True, "a model is AVAILABLE" if missing else "all are AVAILABLE", available
        )
    return Readiness(
        False,
        "no model is AVAILABLE" if not any(found) else f"not AVAILABLE: {', '.join(missing)}",
        available,
    )


async def _is_available(predictions: Predictions, name: str) -> bool:
    statuses = await predictions.versions_of(name, Caller.within(PROBE_TIMEOUT_S))
    predictions.hear(name, statuses)
    return any(each.state == State.AVAILABLE for each in statuses)
