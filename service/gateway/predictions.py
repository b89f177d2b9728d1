"""The one front door: every dialect's request comes through here, over HTTP, gRPC and plain WSGI.

It knows neither HTTP nor gRPC nor Flask. A caller brings a function that decodes its request for
the signatures it is given; here it is decoded, held to every rule about content, joined with those
that wait, and asked. What comes back is arrays.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message

from service.gateway.access.limits import ROWS
from service.gateway.answer import Answer
from service.gateway.asking import AnyQuery, Asking, Decode, Wanted
from service.gateway.caching import NO_CACHE, AnyCache
from service.gateway.caller import Caller
from service.gateway.calls import Calls
from service.gateway.capturing import NO_CAPTURE, AnyCapture
from service.gateway.catalogue import Catalogue
from service.gateway.decode.images import check_examples
from service.gateway.errors import ModelNotFound
from service.gateway.forwarded import PREDICTING, Forwarded, Unread
from service.gateway.model_server import CLASSIFY, GET_STATUS, REGRESS, addressed
from service.gateway.query import ExamplesQuery
from service.gateway.routing import Route
from service.gateway.settings import Settings
from service.gateway.signatures import Signatures
from service.gateway.sizes import bytes_of
from service.gateway.statistics import NO_VERSION, Statistics
from service.gateway.threads import Threads
from service.gateway.trials import Trials
from service.gateway.witness import Witness
from sluice.wire.contract import ENCODED_SIGNATURE, NOVELTY
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import Array

Result = TypeVar("Result")
ByVersion = Mapping[str, Statistics]
Counted = Callable[[], Mapping[str, ByVersion]]
Remark = Callable[[], str]
Hear = Callable[[str, Sequence[serving.ModelVersionStatus]], None]


class Predictions(Catalogue):
    """What can be asked of the models. For the event loop in which `open` was called.

    Every method raises a GatewayError, DeadlineExceeded once the caller's time is over. `counted`
    says what has been counted of them; `hear` is told the states of the named models' versions;
    `remark` says what else whoever asks for readiness should know; `capture` is told what has been
    answered; `cache` keeps answers; `witness` is told how a rollout's versions do.
    """

    def __init__(
        self,
        settings: Settings,
        counted: Counted = dict,
        hear: Hear = lambda *_: None,
        remark: Remark = str,
        capture: AnyCapture = NO_CAPTURE,
        cache: AnyCache = NO_CACHE,
        witness: Witness | None = None,
    ) -> None:
        super().__init__(settings)
        self._counted, self.hear, self.remark = counted, hear, remark
        self._capture, self._threads = capture, Threads(settings.threads)
        calls = Calls(settings, self.model_server, self._threads)
        self.joining, self.aside = calls.joining, self._threads.run
        self._asking = Asking(self, calls, cache)
        self.trials = Trials(settings, calls, witness or Witness())

    async def open(self) -> None:
        await self.model_server.open()
        await self.trials.rollouts.open()

    async def close(self) -> None:
        await self.trials.close()
        await self.joining.close()
        await self.model_server.close()
        await self.aside(self._capture.close)
        self._threads.close()

    async def infer(
        self,
        model: ModelRef,
        decode: Decode[AnyQuery],
        caller: Caller,
        *,
        size: int,
        outputs: Wanted[AnyQuery] = lambda _: (),
    ) -> tuple[AnyQuery, Answer]:
        """The decoded query and its answer.

        size: of what is to be decoded, in bytes. outputs: the names wanted of a query; (): all.
        Raises RequestError, RateLimited, ModelNotFound or a ModelServerError.
        """
        with self._deadlines.within(caller) as time_limit:
            way = self.trials.route(model, caller)
            ask = partial(self._asking.ask, decode, size, outputs, caller, time_limit)
            answered = await self.trials.ask(way, caller, ask, lambda each: each.answer.outputs)
        query, question, answer = answered
        caller.version = answer.version
        question.write_to(self._capture, answer.version, caller)
        self.trials.shadow.offer(way, question, answer, caller)
        if query.signature.name == ENCODED_SIGNATURE:
            caller.novelty = answer.outputs.get(NOVELTY)
        self.answered(question.model, answer.version)
        return query, answer

    async def classify(
        self, model: ModelRef, query: ExamplesQuery, caller: Caller
    ) -> serving.ClassificationResult:
        """Labels and scores of each example; raises as `infer` does."""
        reply = await self._examples(CLASSIFY, serving.ClassificationRequest, model, query, caller)
        return serving.ClassificationResponse.FromString(reply).result

    async def regress(
        self, model: ModelRef, query: ExamplesQuery, caller: Caller
    ) -> serving.RegressionResult:
        """A value for each example; raises as `infer` does."""
        reply = await self._examples(REGRESS, serving.RegressionRequest, model, query, caller)
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
                    await self._threads.run_if_large(
                        len(request), check_examples, examples, self.settings.max_image_pixels
                    )
                way = self._way(method, model, caller)
                ask = partial(self._call, method, request, model, caller)
                version, reply = await self.trials.ask(way, caller, ask)
            if method in PREDICTING:
                caller.version = version.version
                asked, answer = Forwarded(method, request, version), Unread(method, reply, version)
                self.trials.shadow.offer(way, asked, answer, caller)
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
        found = await self._threads.run_if_large(bytes_of(outputs), encode)
        caller.trace.step("encode", began)
        return found

    def _way(self, method: str, model: ModelRef, caller: Caller) -> Route:
        """To whom a request of "/SERVICE/METHOD" goes."""
        if method in PREDICTING:
            return self.trials.route(model, caller)
        return Route(model) if method == GET_STATUS else self.trials.described(model, caller)

    async def _call(
        self, method: str, request: bytes, model: ModelRef, caller: Caller, version: ModelRef
    ) -> tuple[ModelRef, bytes]:
        """The version, and its raw reply to a serialized request that names `model`."""
        began = time.monotonic()
        if version != model:
            request = addressed(method, request, version)
        reply = await self.model_server.call(method, request, version, caller)
        caller.upstream_s = time.monotonic() - began
        return version, reply

    async def _examples(
        self,
        method: str,
        kind: Callable[..., Message],
        model: ModelRef,
        query: ExamplesQuery,
        caller: Caller,
    ) -> bytes:
        spec = model.to_proto(query.signature_name)
        request = kind(model_spec=spec, input=query.examples).SerializeToString()
        return await self.forward(method, request, model, caller, query.examples)


def _examples_of(given: serving.Input) -> int:
    lists = given.example_list.examples, given.example_list_with_context.examples
    return sum(map(len, lists))
