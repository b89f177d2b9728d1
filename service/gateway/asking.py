"""A question to one version of a model: decoded for it, held to every rule about content, asked."""

import time
from collections.abc import Callable
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from service.gateway.access.limits import ROWS
from service.gateway.answer import Answer
from service.gateway.caching import AnyCache
from service.gateway.caller import Caller
from service.gateway.calls import Calls
from service.gateway.capturing import AnyCapture
from service.gateway.catalogue import SIGNATURES_MAY_BE_STALE_S, Catalogue
from service.gateway.classes import check_classes
from service.gateway.deadlines import Within
from service.gateway.decode.images import as_graph_reads, check_content, graph_reads_all
from service.gateway.errors import RejectedByModel, RequestError
from service.gateway.query import Query
from service.gateway.signatures import Signatures, validate
from service.gateway.sizes import kept_by
from service.gateway.traffic import Inputs, Kind, kind_of
from sluice.wire.contract import TAKE_FILES
from sluice.wire.explanations import with_best_class
from sluice.wire.model_ref import ModelRef
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)
Decode = Callable[[Signatures], AnyQuery]
Wanted = Callable[[AnyQuery], tuple[str, ...]]
_Checked = tuple[AnyQuery, Signature, dict[str, Array]]


class Question(NamedTuple):
    """What a version is asked. `rows` is None where the inputs are not one row an instance;
    `signature` the one that the client meant, of which that of `kind` may be a narrower form."""

    kind: Kind
    inputs: Inputs
    rows: int | None
    signature: Signature

    @property
    def model(self) -> ModelRef:
        return self.kind.model

    @property
    def size(self) -> int:
        """Bytes that it keeps."""
        return kept_by(self.inputs)

    def write_to(self, capture: AnyCapture, version: int, caller: Caller) -> None:
        """As one that this version has answered."""
        capture.answered(self.kind, self.inputs, version, caller)

    @property
    def as_meant(self) -> "Question | None":
        """The same by the signature that the client meant; None where it is so already."""
        signature = self.signature
        if signature.name == self.kind.signature:
            return None
        inputs = validate(signature, dict(self.inputs))
        kind = kind_of(self.kind.model, signature.name, self.kind.outputs, inputs)
        return self._replace(kind=kind, inputs=inputs)


class Answered(NamedTuple, Generic[AnyQuery]):
    """What a client asked in its dialect, the question that this came to, and its answer."""

    query: AnyQuery
    question: Question
    answer: Answer


class Asking:
    """Asks what the catalogue has, where no answer is kept. For one event loop."""

    def __init__(self, catalogue: Catalogue, calls: Calls, cache: AnyCache) -> None:
        self._catalogue, self._calls, self._cache = catalogue, calls, cache
        self._run_if_large = calls.threads.run_if_large
        self._max_pixels = catalogue.settings.max_image_pixels

    async def ask(
        self,
        decode: Decode[AnyQuery],
        size: int,
        outputs: Wanted[AnyQuery],
        caller: Caller,
        time_limit: Within,
        model: ModelRef,
    ) -> Answered[AnyQuery]:
        """As `Predictions.infer`, of one version; the query's own time limit shortens
        `time_limit`."""
        query, signature, inputs = await self._checked(model, decode, caller, size)
        if signature.name in TAKE_FILES and not graph_reads_all(inputs):
            inputs = await self._calls.threads.run(as_graph_reads, inputs)
        caller.signature = query.signature.name
        if query.timeout_s is not None:
            time_limit.shorten(caller.began + query.timeout_s)
        if not caller.rows:  # else it has paid for them already, and was not answered
            rows = _rows(signature, inputs) or 1
            if not caller.account.pay(ROWS, rows):
                await caller.account.spend({ROWS: rows})
            caller.rows = rows
        wanted = outputs(query)
        try:
            kind, answer = await self._ask(model, signature, inputs, wanted, caller)
        except RejectedByModel:
            if signature is query.signature:
                raise
            # Another server, or a newer version, may have no such signature.
            signature, inputs = query.signature, validate(query.signature, inputs)
            kind, answer = await self._ask(model, signature, inputs, wanted, caller)
        question = Question(kind, inputs, _rows(signature, inputs), query.signature)
        return Answered(query, question, answer)

    async def _ask(
        self,
        model: ModelRef,
        signature: Signature,
        inputs: Inputs,
        wanted: tuple[str, ...],
        caller: Caller,
    ) -> tuple[Kind, Answer]:
        kind = kind_of(model, signature.name, wanted, inputs)
        rows = _rows(signature, inputs)
        ask = partial(self._calls.joining.ask, kind, inputs, rows, caller)
        live_version = self._catalogue.live_version
        return kind, await self._cache.answer(kind, inputs, caller, ask, live_version)

    async def _checked(
        self, model: ModelRef, decode: Decode[AnyQuery], caller: Caller, size: int
    ) -> _Checked[AnyQuery]:
        """The query, the signature to ask, and inputs that fit it and every rule about content.

        Remembered signatures may be those of a version that was replaced: they may let a request
        pass, but only fresh ones turn it away.
        """
        signatures_of = self._catalogue.signatures_of
        signatures = await signatures_of(model, caller)
        began = time.monotonic()
        try:
            try:
                return await self._run_if_large(size, self._decode, decode, signatures)
            except RequestError:
                fresh = await signatures_of(model, caller, SIGNATURES_MAY_BE_STALE_S)
                if fresh is signatures:
                    raise
                return await self._run_if_large(size, self._decode, decode, fresh)
        finally:
            caller.decode_s = time.monotonic() - began
            caller.trace.step("decode", began)

    def _decode(self, decode: Decode[AnyQuery], signatures: Signatures) -> _Checked[AnyQuery]:
        query = decode(signatures)
        given = with_best_class(query.signature, query.inputs)
        signature = signatures.narrowest(query.signature, given)
        inputs = validate(signature, given)
        check_classes(signature, inputs, signatures)
        check_content(query, self._max_pixels)
        return query, signature, inputs


def _rows(signature: Signature, inputs: Inputs) -> int | None:
    """The rows of a request whose every input and output has one for each instance, else None."""
    return len(next(iter(inputs.values()))) if signature.is_batched else None
