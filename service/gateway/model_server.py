"""The model server as the gateway sees it: TensorFlow Serving's gRPC API, errors by our names."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import grpc

from service.gateway import errors
from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.conduct import Conduct
from service.gateway.dialling import Dialling
from service.gateway.server import Server
from service.gateway.servers import Servers
from sluice.wire.contract import MODEL_SERVICE, PREDICTION_SERVICE, State
from sluice.wire.large_tensors import cut, paste_rows
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.reasons import is_lost, plain_reason
from sluice.wire.tensors import Array, decode_tensor

PREDICT = f"/{PREDICTION_SERVICE}/Predict"
CLASSIFY = f"/{PREDICTION_SERVICE}/Classify"
REGRESS = f"/{PREDICTION_SERVICE}/Regress"
MULTI_INFERENCE = f"/{PREDICTION_SERVICE}/MultiInference"
GET_METADATA = f"/{PREDICTION_SERVICE}/GetModelMetadata"
GET_STATUS = f"/{MODEL_SERVICE}/GetModelStatus"

ATTEMPTS = 3
BACKOFF_S = 0.05
CONNECT_S = 2.0  # that a first call waits for the first connection
MOST_NAMES = 1000  # that are known: those of models, which nobody has so many of
# Of the outputs' names that the head of a request is remembered by, with one for each. Clients
# invent some; a model and a signature that are asked are there.
MOST_LETTERS = 4096

# gRPC status -> error; a test walks every grpc.StatusCode. OUT_OF_RANGE and the like are what
# TensorFlow's kernels answer to values they cannot work with. CANCELLED is a server that stops: a
# caller of ours that gives up is not told anything any more.
ERRORS: dict[grpc.StatusCode, type[errors.GatewayError]] = {
    grpc.StatusCode.CANCELLED: errors.ModelServerUnavailable,
    grpc.StatusCode.UNKNOWN: errors.ModelServerFailed,
    grpc.StatusCode.INVALID_ARGUMENT: errors.RejectedByModel,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.ModelNotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.ModelServerFailed,
    grpc.StatusCode.PERMISSION_DENIED: errors.ModelServerFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ModelServerOverloaded,
    grpc.StatusCode.FAILED_PRECONDITION: errors.RejectedByModel,
    grpc.StatusCode.ABORTED: errors.ModelServerFailed,
    grpc.StatusCode.OUT_OF_RANGE: errors.RejectedByModel,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotImplementedByServer,
    grpc.StatusCode.INTERNAL: errors.ModelServerFailed,
    grpc.StatusCode.UNAVAILABLE: errors.ModelServerUnavailable,
    grpc.StatusCode.DATA_LOSS: errors.ModelServerFailed,
    grpc.StatusCode.UNAUTHENTICATED: errors.ModelServerFailed,
}

_NOT_SERVED = "Servable not found"  # TensorFlow Serving's words; a graph has NOT_FOUNDs of its own


class ModelServer:
    """A client for one model server, or for several that serve the same models.

    `addresses` is HOST:PORT[,HOST:PORT...]. For the event loop in which `open` was called.
    """

    def __init__(self, addresses: str, dialling: Dialling | None = None) -> None:
        self.servers = Servers(addresses, dialling)
        self._names: set[str] = set()

    async def open(self) -> None:
        await self.servers.open()

    async def close(self) -> None:
        await self.servers.close()

    def knows(self, name: str) -> bool:
        """Whether a model of this name has ever answered."""
        return name in self._names

    async def call(self, method: str, request: bytes, model: ModelRef, caller: Caller) -> bytes:
        """The raw reply to a serialized request of "/SERVICE/METHOD".

        Raises RejectedByModel, ModelNotFound or a ModelServerError.
        """
        for attempt in range(ATTEMPTS):
            server = await self.server_for(caller)
            try:
                return await self.call_on(server, method, request, model, caller)
            except errors.ModelServerUnavailable as error:
                if attempt == ATTEMPTS - 1 or not is_tried_again(error, model):
                    raise
            await asyncio.sleep(min(BACKOFF_S * 2**attempt, max(caller.time_left_s(), 0)))
        raise AssertionError("the last attempt returns or raises")

    async def server_for(self, caller: Caller) -> Server:
        """One that takes calls, or, where there is none, one whose failure says why."""
        server = self.servers.choose()
        if server is None:
            await self.servers.until_known(min(CONNECT_S, max(caller.time_left_s(), 0)))
            server = self.servers.choose() or self.servers.any()
        if server is None:
            raise errors.ModelServerUnavailable(
                f"The model server's address {self.servers.addresses} cannot be looked up",
                begun=False,
            )
        return server

    async def call_on(
        self,
        server: Server,
        method: str,
        request: bytes,
        model: ModelRef,
        caller: Caller,
        *,
        weighs: bool = True,
    ) -> bytes:
        """As `call`, by this server alone, which is judged by it where it `weighs`."""
        timeout_s = caller.time_left_s()
        if timeout_s <= 0:
            raise errors.DeadlineExceeded("The request's time was over before it was its turn")
        began = time.monotonic()
        conduct = server.conduct if weighs else Conduct()
        conduct.begin(began)
        failed, left = True, False
        try:
            with caller.trace.call(method, server.target, caller.metadata) as metadata:
                reply: bytes = await server.method(method)(
                    request, timeout=timeout_s, metadata=metadata
                )
            failed = False
            if len(self._names) < MOST_NAMES:
                self._names.add(model.name)
            return reply
        except asyncio.CancelledError:
            left = caller.time_left_s() > 0  # else the deadline ended it, which is the server's
            raise
        except grpc.aio.AioRpcError as error:
            translated = self._translated(error, model, caller)
            failed = not isinstance(translated, errors.RequestError | errors.NotFound)
            if failed and weighs:
                server.events[error.code().name] += 1
            if isinstance(translated, errors.ModelNotFound) and method != GET_STATUS:
                await self._raise_if_loading(server, model, str(translated))
            raise translated from error
        finally:
            now = time.monotonic()
            is_spoilt = self.servers.standstill.spoils(began, now)
            if left or (failed and is_spoilt):
                conduct.abandon()
            else:
                conduct.end(now, None if is_spoilt else now - began, failed)

    async def metadata(self, model: ModelRef, caller: Caller) -> serving.GetModelMetadataResponse:
        """The raw answer of GetModelMetadata; raises ModelNotFound or a ModelServerError."""
        request = serving.GetModelMetadataRequest(
            model_spec=model.to_proto(), metadata_field=["signature_def"]
        )
        reply = await self.call(GET_METADATA, request.SerializeToString(), model, caller)
        return serving.GetModelMetadataResponse.FromString(reply)

    async def status(self, model: ModelRef, caller: Caller) -> list[serving.ModelVersionStatus]:
        """The versions of a model, newest first, each with its state; raises ModelNotFound."""
        request = serving.GetModelStatusRequest(model_spec=model.to_proto())
        reply = await self.call(GET_STATUS, request.SerializeToString(), model, caller)
        return list(serving.GetModelStatusResponse.FromString(reply).model_version_status)

    async def _raise_if_loading(self, server: Server, model: ModelRef, said: str) -> None:
        """TensorFlow Serving says NOT_FOUND of a model that it is about to serve."""
        request = serving.GetModelStatusRequest(model_spec=serving.ModelSpec(name=model.name))
        try:
            reply = await server.method(GET_STATUS)(request.SerializeToString(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return
        statuses = serving.GetModelStatusResponse.FromString(reply).model_version_status
        states = {each.state for each in statuses if model.version in (None, each.version)}
        if states & {State.START, State.LOADING} and State.AVAILABLE not in states:
            raise errors.ModelServerUnavailable(
                f'The model "{model.name}" is loading; try again in a moment',
                begun=False,
                loading=True,
            )
        is_served = State.AVAILABLE in states and model.label is None
        if is_served and _NOT_SERVED in said:  # it has been loaded since
            raise errors.ModelServerUnavailable(
                f'The model "{model.name}" was loading; try again', begun=False
            )

    def _translated(self, error: Any, model: ModelRef, caller: Caller) -> errors.GatewayError:
        kind = ERRORS[error.code()]
        details = plain_reason(error.details() or error.code().name)
        if kind is errors.ModelServerUnavailable:
            lost = error.code() is grpc.StatusCode.CANCELLED or is_lost(details)
            return errors.ModelServerUnavailable(
                f"The model server at {self.servers.addresses} is not available: {details}",
                begun=lost,
            )
        if kind is errors.DeadlineExceeded:
            return kind(
                f"No answer within {caller.time_s:.3g} s from the model server at "
                f"{self.servers.addresses}: {details}"
            )
        if kind is errors.RejectedByModel and model.label and "label" in details:
            return errors.UnknownLabel(details)
        return kind(details)


def is_tried_again(error: errors.ModelServerUnavailable, model: ModelRef) -> bool:
    """Whether another attempt at once is worth it. A version that was asked by its number and
    loads takes longer than all of them, and another version may stand in for it."""
    return not (error.begun or (error.loading and model.version is not None))


def addressed(method: str, request: bytes, model: ModelRef) -> bytes:
    """A serialized request of "/SERVICE/METHOD" that names no version, for that of `model`."""
    if method == MULTI_INFERENCE:
        tasks = serving.MultiInferenceRequest.FromString(request)
        for task in tasks.tasks:
            task.model_spec.MergeFrom(model.to_proto())
        return tasks.SerializeToString()
    # What stands twice in a message is merged, and `model_spec` has one number in all of these.
    return request + serving.ClassificationRequest(model_spec=model.to_proto()).SerializeToString()


def encode_predict_request(
    model: ModelRef,
    signature_name: str,
    inputs: Sequence[Mapping[str, Array]],
    outputs: Sequence[str] = (),
) -> bytes:
    """A serialized PredictRequest for the named outputs, or all; the rows of all `inputs`."""
    return paste_rows(
        request_head(model, signature_name, tuple(outputs)),
        serving.PredictRequest.INPUTS_FIELD_NUMBER,
        {name: [each[name] for each in inputs] for name in inputs[0]},
    )


def request_head(model: ModelRef, signature_name: str, outputs: tuple[str, ...]) -> bytes:
    """A serialized PredictRequest without inputs: the same for many."""
    size = sum(map(len, outputs)) + len(outputs)
    head = _cached_head if size <= MOST_LETTERS else _request_head
    return head(model, signature_name, outputs)


def _request_head(model: ModelRef, signature_name: str, outputs: tuple[str, ...]) -> bytes:
    spec = model.to_proto(signature_name)
    return serving.PredictRequest(model_spec=spec, output_filter=outputs).SerializeToString()


_cached_head = lru_cache(1024)(_request_head)


def decode_predict_response(reply: bytes) -> Answer:
    """The outputs of a serialized PredictResponse, read-only where they lie in it."""
    rest, contents = cut(reply, serving.PredictResponse.OUTPUTS_FIELD_NUMBER)
    response = serving.PredictResponse.FromString(rest)
    outputs = {
        name: decode_tensor(tensor, content=contents.get(name))
        for name, tensor in response.outputs.items()
    }
    return Answer(outputs, response.model_spec.version.value)
