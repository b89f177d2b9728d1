"""The one front door: every dialect's request comes through here, over HTTP, gRPC and plain WSGI.

It knows neither HTTP nor gRPC nor Flask. A caller brings a function that decodes its request for
the signatures it is given; here it is decoded, held to every rule about content, joined with those
that wait, and asked. What comes back is arrays.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from service.gateway.access.limits import ROWS
from service.gateway.answer import Answer
from service.gateway.caching import NO_CACHE, AnyCache
from service.gateway.caller import Caller
from service.gateway.capturing import NO_CAPTURE, AnyCapture
from service.gateway.catalogue import SIGNATURES_MAY_BE_STALE_S, Catalogue
from service.gateway.classes import check_classes
from service.gateway.deadlines import Within
from service.gateway.decode.images import (
    as_graph_reads,
    check_content,
    check_examples,
    graph_reads_all,
)
from service.gateway.errors import ModelNotFound, RejectedByModel, RequestError
from service.gateway.joining import Joining
from service.gateway.model_server import (
    CLASSIFY,
    GET_STATUS,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    addressed,
    decode_predict_response,
    encode_predict_request,
)
from service.gateway.patterns import named_by
from service.gateway.query import ExamplesQuery, Query
from service.gateway.routing import Route
from service.gateway.server import Server
from service.gateway.settings import Settings
from service.gateway.shadowing import NO_COUNTS, Asked, Counts
from service.gateway.signatures import Signatures, validate
from service.gateway.statistics import NO_VERSION, Statistics
from service.gateway.traffic import Call, Inputs, Kind, bytes_of, kind_of
from service.gateway.trials import Trials
from sluice.wire.contract import ENCODED_SIGNATURE, NOVELTY, TAKE_FILES
from sluice.wire.explanations import with_best_class
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)
_Checked = tuple[AnyQuery, Signature, dict[str, Array]]
Result = TypeVar("Result")
Decode = Callable[[Signatures], AnyQuery]
ByVersion = Mapping[str, Statistics]
Counted = Callable[[], Mapping[str, ByVersion]]
Remark = Callable[[], str]
Hear = Callable[[str, Sequence[serving.ModelVersionStatus]], None]

# What is passed on as it came, and is a prediction: it goes where a rollout says.
PREDICTING = (CLASSIFY, REGRESS, MULTI_INFERENCE)
# What takes a millisecond and more is not done in the event loop: reading or writing so many bytes.
LARGE = 1 << 16
LARGE_CALL = 1 << 20  # bytes of tensors, which are only copied


class _Asked(NamedTuple, Generic[AnyQuery]):
    """A request as it was asked, and what was answered."""

    query: AnyQuery
    request: Asked
    answer: Answer


class Predictions(Catalogue):
    """What can be asked of the models. For the event loop in which `open` was called.

    Every method raises a GatewayError, DeadlineExceeded once the caller's time is over. `counted`
    says what has been counted of them; `hear` is told the states of the named models' versions;
    `remark` says what else whoever asks for readiness should know; `capture` is told what has been
    answered; `cache` keeps answers; `counts` and `samples` are told how a rollout's next version
    does.
    """

    def __init__(
        self,
        settings: Settings,
        counted: Counted = dict,
        hear: Hear = lambda *_: None,
        remark: Remark = str,
        capture: AnyCapture = NO_CAPTURE,
        cache: AnyCache = NO_CACHE,
        counts: Counts = NO_COUNTS,
        samples: AnyCapture = NO_CAPTURE,
    ) -> None:
        super().__init__(settings)
        self._counted, self.hear, self.remark = counted, hear, remark
        self._capture, self._cache = capture, cache
        self.joining = Joining(
            self.model_server.servers,
            self._send,
            max_rows=settings.max_joined_rows,
            max_wait_s=settings.max_wait_s,
            joins=named_by(settings.join_models),
        )
        send = partial(self._send, weighs=False)
        self.trials = Trials(settings, self.joining, send, self._work, counts, samples)
        self._pool = ThreadPoolExecutor(settings.threads, "work")

    async def open(self) -> None:
        await self.model_server.open()
        await self.trials.rollouts.open()

    async def close(self) -> None:
        await self.trials.close()
        await self.joining.close()
        await self.model_server.close()
        await self.aside(self._capture.close)
        self._pool.shutdown(wait=False)

    async def infer(
        self,
        model: ModelRef,
        decode: Decode[AnyQuery],
        caller: Caller,
        *,
        size: int,
        outputs: Callable[[AnyQuery], tuple[str, ...]] = lambda _: (),
    ) -> tuple[AnyQuery, Answer]:
        """The decoded query and its answer.

        size: of what is to be decoded, in bytes. outputs: the names wanted of a query; (): all.
        Raises RequestError, RateLimited, ModelNotFound or a ModelServerError.
        """
        with self._deadlines.within(caller) as time_limit:
            way = self.trials.route(model, caller)
            ask = partial(self._answered, decode, caller, size, outputs, time_limit)
            asked = await self.trials.ask(way, caller, ask, lambda each: each.answer.outputs)
        query, request, answer = asked.query, asked.request, asked.answer
        caller.version = answer.version
        self._capture.answered(request.kind, request.inputs, answer.version, caller)
        if request.kind.model == way.model:
            self.trials.shadow.offer(way, request, answer, caller)
        if query.signature.name == ENCODED_SIGNATURE:
            caller.novelty = answer.outputs.get(NOVELTY)
        self.answered(request.kind.model, answer.version)
        return query, answer

    async def classify(
        self, model: ModelRef, query: ExamplesQuery, caller: Caller
    ) -> serving.ClassificationResult:
        """Labels and scores of each example; raises as `infer` does."""
        request = serving.ClassificationRequest(
            model_spec=model.to_proto(query.signature_name), input=query.examples
        )
        reply = await self._examples(CLASSIFY, request, query.examples, model, caller)
        return serving.ClassificationResponse.FromString(reply).result

    async def regress(
        self, model: ModelRef, query: ExamplesQuery, caller: Caller
    ) -> serving.RegressionResult:
        """A value for each example; raises as `infer` does."""
        request = serving.RegressionRequest(
            model_spec=model.to_proto(query.signature_name), input=query.examples
        )
        reply = await self._examples(REGRESS, request, query.examples, model, caller)
        return serving.RegressionResponse.FromString(reply).result

    async def forward(
        self,
        method: str,
        request: bytes,
        model: ModelRef,
        caller: Caller,
        examples: serving.Input | None = None,
    ) -> bytes:
        """The raw reply to a serialized request of "/SERVICE/METHOD", whose images are held to the
        same rules; raises as `infer` does."""
        try:
            with self._deadlines.within(caller):
                if examples is not None:
                    await caller.account.spend({ROWS: _examples_of(examples)})
                    await self._work(len(request), check_examples, examples, self._max_pixels)
                way = self._way(method, model, caller)
                ask = partial(self._call, method, request, model, caller)
                version, reply = await self.trials.ask(way, caller, ask)
            if method in PREDICTING:
                caller.version = version.version
            self._capture.forwarded(method, request, version, caller)
            return reply
        except ModelNotFound as error:
            raise self.with_names(error, model, caller) from error

    async def signatures(
        self, model: ModelRef, caller: Caller, max_age_s: float | None = None
    ) -> Signatures:
        """As `signatures_of`, of the version that a rollout holds."""
        way = self.trials.described(model, caller)
        ask = self.signatures_of
        return await self.trials.ask(way, caller, lambda version: ask(version, caller, max_age_s))

    async def metadata(self, model: ModelRef, caller: Caller) -> serving.GetModelMetadataResponse:
        """As `metadata_of`, of the version that a rollout holds."""
        way = self.trials.described(model, caller)
        return await self.trials.ask(way, caller, lambda version: self.metadata_of(version, caller))

    async def statistics(self, model: ModelRef, caller: Caller) -> dict[str, ByVersion]:
        """What has been counted of a model's versions, by its name; without one, of all the named
        models. What failed before a version answered has the version NO_VERSION."""
        if model.name:
            served = {model.name: await self.status(model, caller)}
        else:
            served = await self.listing(caller)
        counted = await self.aside(self._counted)
        found: dict[str, ByVersion] = {}
        for name, statuses in served.items():
            of = counted.get(name, {})
            versions = [*(str(each.version) for each in statuses), *({NO_VERSION} & of.keys())]
            found[name] = {version: of.get(version) or Statistics() for version in versions}
        return found

    async def encoded(
        self, outputs: dict[str, Array], encode: Callable[[], Result], caller: Caller
    ) -> Result:
        """What `encode` makes of outputs, in a thread where these are large."""
        began = time.monotonic()
        found = await self._work(bytes_of(outputs), encode)
        caller.trace.step("encode", began)
        return found

    async def aside(self, work: Callable[..., Result], *arguments: object) -> Result:
        """`work(*arguments)` in a thread: what may take long however small it looks."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    @property
    def _max_pixels(self) -> int:
        return self.settings.max_image_pixels

    async def _answered(
        self,
        decode: Decode[AnyQuery],
        caller: Caller,
        size: int,
        outputs: Callable[[AnyQuery], tuple[str, ...]],
        time_limit: Within,
        model: ModelRef,
    ) -> "_Asked[AnyQuery]":
        """Decode for a version, and ask it."""
        query, signature, inputs = await self._checked(model, decode, caller, size)
        if signature.name in TAKE_FILES and not graph_reads_all(inputs):
            inputs = await self.aside(as_graph_reads, inputs)
        caller.signature = query.signature.name
        if query.timeout_s is not None:
            time_limit.shorten(caller.began + query.timeout_s)
        if not caller.rows:  # else it has paid for them already, and was not answered
            await caller.account.spend({ROWS: _rows(signature, inputs) or 1})
        wanted = outputs(query)
        try:
            kind, answer = await self._ask(model, signature, inputs, wanted, caller)
        except RejectedByModel:
            if signature is query.signature:
                raise
            # Another server, or a newer version, may have no such signature.
            signature, inputs = query.signature, validate(query.signature, inputs)
            kind, answer = await self._ask(model, signature, inputs, wanted, caller)
        request = Asked(kind, inputs, _rows(signature, inputs), query.signature)
        return _Asked(query, request, answer)

    def _way(self, method: str, model: ModelRef, caller: Caller) -> Route:
        """To whom a request of "/SERVICE/METHOD" goes."""
        if method in PREDICTING:
            return self.trials.route(model, caller)
        return Route(model) if method == GET_STATUS else self.trials.described(model, caller)

    async def _call(
        self, method: str, request: bytes, model: ModelRef, caller: Caller, version: ModelRef
    ) -> tuple[ModelRef, bytes]:
        """The version, and its raw reply to a serialized request that names `model`."""
        if version != model:
            request = addressed(method, request, version)
        return version, await self.model_server.call(method, request, version, caller)

    async def _examples(
        self,
        method: str,
        request: Message,
        examples: serving.Input,
        model: ModelRef,
        caller: Caller,
    ) -> bytes:
        return await self.forward(method, request.SerializeToString(), model, caller, examples)

    async def _ask(
        self,
        model: ModelRef,
        signature: Signature,
        inputs: Inputs,
        wanted: tuple[str, ...],
        caller: Caller,
    ) -> tuple[Kind, Answer]:
        kind = kind_of(model, signature.name, wanted, inputs)
        ask = partial(self.joining.ask, kind, inputs, _rows(signature, inputs), caller)
        return kind, await self._cache.answer(kind, inputs, caller, ask, self.live_version)

    async def _checked(
        self, model: ModelRef, decode: Decode[AnyQuery], caller: Caller, size: int
    ) -> _Checked[AnyQuery]:
        """The query, the signature to ask, and inputs that fit it and every rule about content.

        Remembered signatures may be those of a version that was replaced: they may let a request
        pass, but only fresh ones turn it away.
        """
        signatures = await self.signatures_of(model, caller)
        began = time.monotonic()
        try:
            try:
                return await self._work(size, self._decode, decode, signatures)
            except RequestError:
                fresh = await self.signatures_of(model, caller, SIGNATURES_MAY_BE_STALE_S)
                if fresh is signatures:
                    raise
                return await self._work(size, self._decode, decode, fresh)
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

    async def _send(self, server: Server, call: Call, *, weighs: bool = True) -> Answer:
        kind = call.kind
        encode = (encode_predict_request, kind.model, kind.signature, call.inputs, kind.outputs)
        request = await self._work(call.size, *encode, most=LARGE_CALL)
        reply = await self.model_server.call_on(
            server, PREDICT, request, kind.model, call.caller, weighs=weighs
        )
        return await self._work(len(reply), decode_predict_response, reply, most=LARGE_CALL)

    async def _work(
        self, size: int, work: Callable[..., Result], *arguments: object, most: int = LARGE
    ) -> Result:
        """`work(*arguments)`, in a thread where `size` bytes are too many for the event loop."""
        if size <= most:
            return work(*arguments)
        return await self.aside(work, *arguments)


def _examples_of(given: serving.Input) -> int:
    lists = given.example_list.examples, given.example_list_with_context.examples
    return sum(map(len, lists))


def _rows(signature: Signature, inputs: Inputs) -> int | None:
    """The rows of a request whose every input and output has one for each instance, else None."""
    return len(next(iter(inputs.values()))) if signature.is_batched else None
