"""Answers that are given again to who asks the same: off unless SLUICE_CACHE_MODELS names models.

What is the same: the inputs as the model gets them, whatever the dialect; the signature, the
outputs that are wanted, and the version that answers now, for which the model server is asked once
a second. A caller is let in, held to its limits and to every rule about content before anybody
looks here.

Inputs are told apart by BLAKE2b, with a key of this process's own. A hash that is no cryptographic
one, however long, lets a client make two pictures of one hash, and have the answer to his given to
another's.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from cachetools import TTLCache

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.flights import Flights
from service.gateway.patterns import named_by
from service.gateway.settings import Settings
from service.gateway.sizes import bytes_of
from service.gateway.telemetry import Telemetry
from service.gateway.traffic import Inputs, Kind
from sluice.wire.model_ref import ModelRef
from sluice.wire.tensors import encode_content, encode_header

# What becomes of a request of these models, as metrics and log say it, and as the caller is told
# (RFC 9211).
HIT, SHARED, MISS, PASSED = "hit", "shared", "miss", "passed"
NOT_ASKED = (HIT, SHARED)  # the model server, for this request
_STATUS = {
    HIT: "sluice; hit",
    SHARED: "sluice; fwd=miss; collapsed",
    MISS: "sluice; fwd=miss",
    PASSED: "sluice; fwd=request",
}
ENTRY_BYTES = 1024  # of an entry, beside its arrays
LARGE = 1 << 20  # bytes, which take a millisecond to tell apart
_SECRET = os.urandom(hashlib.blake2b.MAX_KEY_SIZE)

Ask = Callable[[], Awaitable[Answer]]
LiveVersion = Callable[[ModelRef, Caller], Awaitable[int]]


class _Key(NamedTuple):
    model: str
    version: int
    signature: str
    outputs: tuple[str, ...]
    digest: bytes


class _Kept(NamedTuple):
    answer: Answer
    since: float  # on the monotonic clock


class NoCache:
    """Keeps nothing."""

    async def answer(
        self, kind: Kind, inputs: Inputs, caller: Caller, ask: Ask, live_version: LiveVersion
    ) -> Answer:
        del kind, inputs, caller, live_version
        return await ask()


class Cache:
    """The answers of one worker; `tell` is told how many bytes they take. For one event loop."""

    def __init__(self, settings: Settings, tell: Callable[[float], None]) -> None:
        self._keeps, self._tell = named_by(settings.cache_models), tell
        self._kept: TTLCache[_Key, _Kept] = TTLCache(
            settings.cache_max_bytes, settings.cache_max_age_s, getsizeof=_size_of
        )
        self._flights: Flights[Answer] = Flights()
        self._looks: Flights[int] = Flights()

    async def answer(
        self, kind: Kind, inputs: Inputs, caller: Caller, ask: Ask, live_version: LiveVersion
    ) -> Answer:
        """The answer to these inputs: one that is kept, of the version that `live_version` says,
        else what `ask` gives, once for all who wait for the same. Raises what they raise."""
        if not self._keeps(kind.model.name):
            return await ask()
        if caller.no_store:
            caller.cache = PASSED
            return await ask()
        caller.cache = MISS
        version, _ = await self._looks.share(kind.model, partial(live_version, kind.model, caller))
        large = bytes_of(inputs) > LARGE
        digest = await asyncio.to_thread(digest_of, inputs) if large else digest_of(inputs)
        key = _Key(kind.model.name, version, kind.signature, kind.outputs, digest)
        kept = self._kept.get(key)
        if kept is not None:
            caller.cache, caller.age_s = HIT, time.monotonic() - kept.since
            return _own(kept.answer)
        # By the model as it was asked for: a version that is pinned is not answered by another.
        answer, shared = await self._flights.share((kind.model, key), ask)
        if shared:
            caller.cache = SHARED
            return _own(answer)
        self._keep(key._replace(version=answer.version), answer)
        return answer

    def _keep(self, key: _Key, answer: Answer) -> None:
        """An answer of which no version is told is nobody's."""
        if answer.version and ENTRY_BYTES + answer.size <= self._kept.maxsize:
            self._kept[key] = _Kept(answer.to_keep(), time.monotonic())
            self._tell(self._kept.currsize)


NO_CACHE = NoCache()
AnyCache = NoCache | Cache


def cache_of(settings: Settings, telemetry: Telemetry) -> AnyCache:
    """What the settings ask for."""
    return Cache(settings, telemetry.cache_holds) if settings.cache_models else NO_CACHE


def told(caller: Caller) -> dict[str, str]:
    """What the caller's answer says of it, as headers; nothing where no answers are kept."""
    if not caller.cache:
        return {}
    status = {"Cache-Status": _STATUS[caller.cache]}
    return status | {"Age": str(int(caller.age_s))} if caller.cache == HIT else status


def digest_of(inputs: Inputs) -> bytes:
    """Of inputs by name, whatever their order; another one for other names, dtypes or shapes.

    >>> ones = np.ones((1, 4), np.int32)
    >>> digest_of({"a": ones}) == digest_of({"a": ones.reshape(4, 1)})
    False
    """
    found = hashlib.blake2b(key=_SECRET, digest_size=32)
    for name in sorted(inputs):
        array = inputs[name]
        found.update(_form(name, array.dtype, array.shape))
        found.update(encode_content(array))
    return found.digest()


@lru_cache(1024)
def _form(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """So that it cannot end otherwise, each part comes behind its length."""
    parts = name.encode(), encode_header(dtype, shape)
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _own(answer: Answer) -> Answer:
    """The same in a mapping of the caller's own."""
    return Answer(dict(answer.outputs), answer.version)


def _size_of(kept: _Kept) -> int:
    return ENTRY_BYTES + kept.answer.size
