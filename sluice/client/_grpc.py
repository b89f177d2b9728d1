"""TensorFlow Serving's gRPC API, as a client speaks it. The only module here that imports grpc."""

import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc

from sluice.client import errors
from sluice.client._calls import (
    Call,
    GetMetadata,
    GetStatus,
    IsReady,
    Predict,
)
from sluice.client.results import ModelMetadata, Prediction, VersionStatus
from sluice.wire.channels import CHANNEL_OPTIONS
from sluice.wire.contract import State
from sluice.wire.data_types import TensorError
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.serving_pb2_grpc import ModelServiceStub, PredictionServiceStub
from sluice.wire.tensors import decode_tensor, encode_tensor

DEFAULT_PORT = 8500
Code = grpc.StatusCode

# A test walks every grpc.StatusCode. OUT_OF_RANGE and FAILED_PRECONDITION are what TensorFlow
# answers to values it cannot work with, and to a signature that the model has not.
ERRORS: dict[grpc.StatusCode, type[errors.ClientError]] = {
    Code.CANCELLED: errors.Cancelled,
    Code.UNKNOWN: errors.ServerFailed,
    Code.INVALID_ARGUMENT: errors.BadRequest,
    Code.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    Code.NOT_FOUND: errors.NotFound,
    Code.ALREADY_EXISTS: errors.ServerFailed,
    Code.PERMISSION_DENIED: errors.NotAllowed,
    Code.RESOURCE_EXHAUSTED: errors.Overloaded,
    Code.FAILED_PRECONDITION: errors.BadRequest,
    Code.ABORTED: errors.ServerFailed,
    Code.OUT_OF_RANGE: errors.BadRequest,
    Code.UNIMPLEMENTED: errors.NotSupported,
    Code.INTERNAL: errors.ServerFailed,
    Code.UNAVAILABLE: errors.Unavailable,
    Code.DATA_LOSS: errors.ServerFailed,
    Code.UNAUTHENTICATED: errors.NotAllowed,
}
# Under RESOURCE_EXHAUSTED: gRPC's own words, at either end, and the gateway's for a limit of size.
TOO_LARGE = "larger than"

_OPTIONS: list[tuple[str, int | str]] = [
    *CHANNEL_OPTIONS,
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_retries", 0),  # _flows.py tries again, by the same rules for both protocols
]


class GrpcRequest(NamedTuple):
    """A call as gRPC: the method's name, and its message."""

    method: str
    message: Any


def encode_call(call: Call[Any]) -> GrpcRequest:
    """Raises BadRequest for an array that no tensor holds, NotSupported for a list of models."""
    match call:
        case Predict(pictures=frozenset(pictures)) if pictures:
            raise errors.NotSupported(
                f'"{min(pictures)}" takes pixels, and gRPC decodes no files; ask the gateway at '
                "http://, or give arrays"
            )
        case Predict():
            return GrpcRequest("Predict", _encode_predict(call))
        case GetMetadata(model):
            return GrpcRequest(
                "GetModelMetadata",
                serving.GetModelMetadataRequest(
                    model_spec=model.to_proto(), metadata_field=["signature_def"]
                ),
            )
        case GetStatus(name) | IsReady(name):
            return GrpcRequest(
                "GetModelStatus",
                serving.GetModelStatusRequest(model_spec=serving.ModelSpec(name=name or "")),
            )
    raise errors.NotSupported(
        "TensorFlow Serving's gRPC API cannot list its models; ask the gateway, http://HOST:PORT"
    )


def decode_reply(call: Call[Any], reply: Any) -> Any:
    """Raises BadReply."""
    try:
        match call:
            case Predict():
                return _decode_predict(call, reply)
            case GetMetadata(model):
                signatures = serving.SignatureDefMap()
                reply.metadata["signature_def"].Unpack(signatures)
                return ModelMetadata.from_proto(
                    model.name, reply.model_spec.version.value, signatures
                )
            case IsReady():
                return any(each.state == State.AVAILABLE for each in reply.model_version_status)
            case _:
                return [VersionStatus.from_proto(each) for each in reply.model_version_status]
    except TensorError as error:
        raise errors.BadReply(str(error)) from error


def error_of(call: Call[Any], error: Any) -> errors.ClientError | None:
    """The error of a grpc.RpcError, which carries its status; None where the call is answered:
    any refusal to name the status of no model shows that a server is there."""
    code, details = error.code(), error.details() or ""
    if call == IsReady(None) and code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND):
        return None
    if code == Code.RESOURCE_EXHAUSTED and TOO_LARGE in details:
        return errors.TooLarge(details, code.name)
    return ERRORS[code](details or code.name, code.name)


class GrpcTransport:
    """For threads."""

    def __init__(
        self, url: str, headers: Mapping[str, str], ca_file: str | PathLike[str] | None
    ) -> None:
        self._metadata = _encode_headers(headers)
        self._channel = _dial(url, ca_file, grpc.insecure_channel, grpc.secure_channel)
        self._methods = _methods(self._channel)

    def send(self, call: Call[Any], timeout_s: float) -> Any:
        request = encode_call(call)
        try:
            reply = self._methods[request.method](
                request.message, timeout=timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as error:
            return _answered_or_raise(call, error)
        return decode_reply(call, reply)

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """For asyncio. The channel belongs to a loop, so it is made in that of the first call."""

    def __init__(
        self, url: str, headers: Mapping[str, str], ca_file: str | PathLike[str] | None
    ) -> None:
        self._metadata = _encode_headers(headers)
        self._url, self._ca_file = url, ca_file
        self._channel: grpc.aio.Channel | None = None

    async def send(self, call: Call[Any], timeout_s: float) -> Any:
        if self._channel is None:
            self._channel = _dial(
                self._url, self._ca_file, grpc.aio.insecure_channel, grpc.aio.secure_channel
            )
            self._methods = _methods(self._channel)
        request = encode_call(call)
        try:
            reply = await self._methods[request.method](
                request.message, timeout=timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            return _answered_or_raise(call, error)
        return decode_reply(call, reply)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)


def _dial(
    url: str,
    ca_file: str | PathLike[str] | None,
    insecure: Callable[..., Any],
    secure: Callable[..., Any],
) -> Any:
    parts = urlsplit(url)
    target = f"dns:///{parts.netloc}" if parts.port else f"dns:///{parts.netloc}:{DEFAULT_PORT}"
    if parts.scheme == "grpc":
        return insecure(target, options=_OPTIONS)
    authorities = Path(ca_file).read_bytes() if ca_file else None
    return secure(target, grpc.ssl_channel_credentials(authorities), options=_OPTIONS)


def _methods(channel: Any) -> dict[str, Callable[..., Any]]:
    predictions, models = PredictionServiceStub(channel), ModelServiceStub(channel)
    return {
        "Predict": predictions.Predict,
        "GetModelMetadata": predictions.GetModelMetadata,
        "GetModelStatus": models.GetModelStatus,
    }


def _encode_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.items()]


def _answered_or_raise(call: Call[Any], error: Any) -> bool:
    translated = error_of(call, error)
    if translated is not None:
        raise translated from error
    return True


def _encode_predict(call: Predict) -> serving.PredictRequest:
    request = serving.PredictRequest(
        model_spec=call.model.to_proto(call.signature), output_filter=call.outputs
    )
    try:
        for name, array in call.inputs.items():
            request.inputs[name].CopyFrom(encode_tensor(array, content=True))
    except TensorError as error:
        raise errors.BadRequest(str(error)) from error
    return request


def _decode_predict(call: Predict, reply: serving.PredictResponse) -> Prediction:
    outputs = {name: decode_tensor(reply.outputs[name]) for name in sorted(reply.outputs)}
    version = ModelRef.from_proto(reply.model_spec).version
    return Prediction(outputs, call.model.name, version, call.signature, call.inputs)
