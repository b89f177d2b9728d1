"""Which version is asked: by the request itself, by its header, or by the rollout in force."""

import random
import time
from typing import NamedTuple

from service.gateway.caller import Caller
from service.gateway.errors import (
    GatewayError,
    MalformedRequest,
    ModelNotFound,
    ModelServerError,
    ModelServerUnavailable,
    NotFound,
    RequestError,
    shown,
)
from service.rollout.state import goes_to_next
from sluice.wire.model_ref import ModelRef
from sluice.wire.rollouts import BY_HEADER, BY_KEY, RANDOM, Rollout, Stage
from sluice.wire.versions import version_number

VERSION = "x-sluice-version"  # N, live or next, in a request that names none
LIVE, NEXT = "live", "next"
# That a model server may take to load what a rollout's beginning asks for: on Kubernetes a minute
# until it has the new models.config, and as much for the load. Longer, and a server that starts
# anew would answer by the version on trial.
BEGINNING_S = 120.0


class Route(NamedTuple):
    """The model with the version to ask. `rollout`: the one that has chosen it, if one has, and
    whether it is the canary's turn. `instead`: who is asked where it fails, so that no request is
    lost for a version that is on trial, or not loaded yet."""

    model: ModelRef
    rollout: Rollout | None = None
    is_canary: bool = False
    instead: ModelRef | None = None

    def goes_round(self, error: GatewayError) -> bool:
        """Whether the other is asked after this error, which may be this version's own. Not after a
        call that a server was lost under, which may have been what it died of."""
        if self.instead is None:
            return False
        if is_absent(error):
            return True
        is_lost = isinstance(error, ModelServerUnavailable)
        its_own = isinstance(error, RequestError | NotFound | ModelServerError)
        return self.is_canary and its_own and not is_lost


def is_absent(error: GatewayError) -> bool:
    """Whether a server has not loaded the version that it was asked for, or not yet: it has
    answered nothing wrong, and another may answer."""
    if isinstance(error, ModelServerUnavailable):
        return error.loading
    return isinstance(error, ModelNotFound)


def route(model: ModelRef, rollout: Rollout | None, caller: Caller) -> Route:
    """Who answers. Raises MalformedRequest for a header that says nothing, or something else than
    the request does."""
    pinned = caller.headers.get(VERSION, "")
    if pinned:
        return Route(_pinned(model, rollout, pinned))
    if rollout is None or model.version is not None or model.label is not None:
        return Route(model)
    answering = ModelRef(model.name, rollout.answering)
    if rollout.canary and _is_canarys(model.name, rollout, caller):
        return Route(ModelRef(model.name, rollout.next), rollout, True, answering)
    if rollout.answering != rollout.live:  # live is loaded still; the newest may be on trial by now
        return Route(answering, rollout, instead=ModelRef(model.name, rollout.live))
    return Route(answering, rollout, instead=model if _newest_may_answer(rollout) else None)


def described(model: ModelRef, rollout: Rollout | None, caller: Caller) -> Route:
    """Who says what the model takes and gives: as `route`, but no canary, and of nobody's count."""
    found = route(model, rollout, caller)
    if found.is_canary and found.instead is not None:
        return Route(found.instead, instead=model)
    return found._replace(rollout=None)


def _newest_may_answer(rollout: Rollout) -> bool:
    """Whether the newest version, which has answered so far, may do so where live is not loaded.
    Later the newest is the one on trial, or the one that was rolled back."""
    if rollout.live == rollout.next:  # it is held, and none is on trial
        return True
    if rollout.stage not in (Stage.REPLAY, Stage.SHADOW) or rollout.earlier:
        return False
    return len(rollout.history) == 1 and abs(time.time() - rollout.history[0].at) < BEGINNING_S


def _is_canarys(model: str, rollout: Rollout, caller: Caller) -> bool:
    if rollout.by == RANDOM:
        return random.random() < rollout.canary
    value = (
        caller.grant.id
        if rollout.by == BY_KEY
        else caller.headers.get(rollout.by.removeprefix(BY_HEADER), "")
    )
    return bool(value) and goes_to_next(rollout, model, value)


def _pinned(model: ModelRef, rollout: Rollout | None, pinned: str) -> ModelRef:
    if pinned in (LIVE, NEXT):
        if rollout is None and pinned == LIVE:
            return model
        if rollout is None:
            raise MalformedRequest(
                f'X-Sluice-Version: {pinned}: nothing of the model "{shown(model.name)}" is being '
                "rolled out; expected a version's number"
            )
        number: int | None = rollout.answering if pinned == LIVE else rollout.next
    else:
        number = version_number(pinned)
    if number is None:
        raise MalformedRequest(
            f"X-Sluice-Version: expected a version's number, {LIVE} or {NEXT}, got {shown(pinned)}"
        )
    if model.label is not None or model.version not in (None, number):
        named = model.label or model.version
        raise MalformedRequest(
            f"X-Sluice-Version: {shown(pinned)}, and the request itself names {named}: leave one "
            "out"
        )
    return ModelRef(model.name, number)
