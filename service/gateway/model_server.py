"""The model server as the gateway sees it, over gRPC. Only this module and `rpc` import grpc."""

import functools
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc

from service.gateway import errors
from service.gateway.caller import CALLER
from service.gateway.query import ExamplesQuery
from service.gateway.signature import ModelSpec, Signatures
from sluice.wire.large_tensors import cut, paste
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.serving_pb2_grpc import ModelServiceStub, PredictionServiceStub
from sluice.wire.tensors import Array, decode_tensor

State = serving.ModelVersionStatus.State
Reply = TypeVar("Reply")
Checked = TypeVar("Checked")
SIGNATURES_MAY_BE_STALE_S = 1.0
PREDICT = "/tensorflow.serving.PredictionService/Predict"

# gRPC status -> error; tests walk every grpc.StatusCode. OUT_OF_RANGE and the like are what
# TensorFlow's kernels answer to values they cannot work with.
ERRORS: dict[grpc.StatusCode, type[errors.GatewayError]] = {
    grpc.StatusCode.CANCELLED: errors.RequestCancelled,
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

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # A prediction changes nothing, so it may be tried again where no server took it.
    "methodConfig": [
        {
            "name": [
                {"service": "tensorflow.serving.PredictionService"},
                {"service": "tensorflow.serving.ModelService"},
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
CHANNEL_OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", -1),  # gRPC's 4 MB is less than a batch of feature maps
    ("grpc.max_send_message_length", -1),
    # A model server that comes back is found within a second, not after two minutes of backoff.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Prediction(NamedTuple):
    """Outputs by name, and the version that gave them."""

    outputs: dict[str, Array]
    version: int


class _Remembered(NamedTuple):
    signatures: Signatures
    version: int
    at: float  # time.monotonic()


class ModelServer:
    """A client for one model server, or for several that serve the same models.

    `addresses` is HOST:PORT[,HOST:PORT...]. The channel is made at the first call, so an object
    made before gunicorn forks is good after it.
    """

    def __init__(
        self, addresses: str, timeout_s: float = 30.0, metadata_ttl_s: float = 10.0
    ) -> None:
        self._addresses, self._timeout_s, self._ttl_s = addresses, timeout_s, metadata_ttl_s
        self._lock = threading.Lock()
        self._connected_pid = 0
        self._remembered: dict[ModelSpec, _Remembered] = {}

    def signatures(self, model: ModelSpec, max_age_s: float | None = None) -> Signatures:
        """The signatures of the version that answers for `model` now, or did `max_age_s` ago.

        Raises ModelNotFound, UnknownLabel, or a ModelServerError.
        """
        known = self._remembered.get(model)
        age_s = self._ttl_s if max_age_s is None else max_age_s
        if known and time.monotonic() - known.at < age_s:
            return known.signatures
        reply = self.metadata(model)
        found = serving.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(found)
        signatures = Signatures(dict(found.signature_def))
        if known and known.signatures == signatures:
            signatures = known.signatures  # keep what is parsed already
        self._remember(
            model, _Remembered(signatures, reply.model_spec.version.value, time.monotonic())
        )
        return signatures

    def checked(self, model: ModelSpec, check: Callable[[Signatures], Checked]) -> Checked:
        """`check` of the model's signatures, which raises a RequestError for what does not fit.

        Remembered signatures may be those of a version that was replaced: they may let a request
        pass, but only fresh ones turn it away.
        """
        signatures = self.signatures(model)
        try:
            return check(signatures)
        except errors.RequestError:
            fresh = self.signatures(model, max_age_s=SIGNATURES_MAY_BE_STALE_S)
            if fresh is signatures:
                raise
            return check(fresh)

    def predict(
        self,
        model: ModelSpec,
        signature_name: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> Prediction:
        """The named outputs, or all.

        Raises RejectedByModel, ModelNotFound or a ModelServerError.
        """
        request = paste(
            serving.PredictRequest(model_spec=_proto(model, signature_name), output_filter=outputs),
            serving.PredictRequest.INPUTS_FIELD_NUMBER,
            inputs,
        )
        raw: bytes = self._call(lambda: self._raw(PREDICT), request, model, timeout_s)
        rest, contents = cut(raw, serving.PredictResponse.OUTPUTS_FIELD_NUMBER)
        reply = serving.PredictResponse.FromString(rest)
        version = reply.model_spec.version.value
        self._forget_if_replaced(model, version)
        return Prediction(
            {
                name: decode_tensor(tensor, content=contents.get(name))
                for name, tensor in reply.outputs.items()
            },
            version,
        )

    def forward(self, method: str, request: bytes, model: ModelSpec | None = None) -> bytes:
        """The raw reply to a serialized request of "/SERVICE/METHOD"; raises as `predict` does."""
        reply: bytes = self._call(lambda: self._raw(method), request, model or ModelSpec(""))
        return reply

    def forward_predict(self, request: bytes, model: ModelSpec) -> bytes:
        """The raw reply to a serialized PredictRequest, read for the version that gave it."""
        reply = self.forward(PREDICT, request, model)
        self._forget_if_replaced(
            model, serving.PredictResponse.FromString(reply).model_spec.version.value
        )
        return reply

    def classify(self, model: ModelSpec, query: ExamplesQuery) -> serving.ClassificationResult:
        """Labels and scores of each example; raises as `predict` does."""
        request = serving.ClassificationRequest(
            model_spec=_proto(model, query.signature_name), input=query.examples
        )
        reply: serving.ClassificationResponse = self._call(
            lambda: self._prediction.Classify, request, model
        )
        return reply.result

    def regress(self, model: ModelSpec, query: ExamplesQuery) -> serving.RegressionResult:
        """A value for each example; raises as `predict` does."""
        request = serving.RegressionRequest(
            model_spec=_proto(model, query.signature_name), input=query.examples
        )
        reply: serving.RegressionResponse = self._call(
            lambda: self._prediction.Regress, request, model
        )
        return reply.result

    def metadata(self, model: ModelSpec) -> serving.GetModelMetadataResponse:
        """The raw answer of GetModelMetadata; raises as `signatures` does."""
        request = serving.GetModelMetadataRequest(
            model_spec=_proto(model), metadata_field=["signature_def"]
        )
        reply: serving.GetModelMetadataResponse = self._call(
            lambda: self._prediction.GetModelMetadata, request, model
        )
        return reply

    def status(
        self, model: ModelSpec, timeout_s: float | None = None
    ) -> list[serving.ModelVersionStatus]:
        """The versions of a model, newest first, each with its state; raises ModelNotFound."""
        request = serving.GetModelStatusRequest(model_spec=_proto(model))
        reply = self._call(lambda: self._models.GetModelStatus, request, model, timeout_s)
        return list(reply.model_version_status)

    def available_versions(self, model_name: str, timeout_s: float | None = None) -> list[int]:
        """The versions that take requests, newest first; raises ModelNotFound."""
        return [
            each.version
            for each in self.status(ModelSpec(model_name), timeout_s)
            if each.state == State.AVAILABLE
        ]

    def is_available(self, model_name: str, timeout_s: float) -> bool:
        """Whether some version of the model takes requests; raises a ModelServerError."""
        try:
            return bool(self.available_versions(model_name, timeout_s))
        except errors.NotFound:
            return False

    def close(self) -> None:
        if self._connected_pid == os.getpid():
            self._channel.close()
            self._connected_pid = 0

    def _call(
        self,
        method: Callable[[], Callable[..., Reply]],
        request: Any,
        model: ModelSpec,
        timeout_s: float | None = None,
    ) -> Reply:
        self._connect()
        caller = CALLER.get()
        timeout_s = caller.time_left_s(timeout_s or self._timeout_s)
        try:
            reply: Reply = caller.call(method(), request, timeout_s)
            return reply
        except grpc.RpcError as error:
            raise self._translated(error, model, timeout_s) from error

    def _translated(
        self, error: grpc.RpcError, model: ModelSpec, timeout_s: float
    ) -> errors.GatewayError:
        kind, details = ERRORS[error.code()], error.details() or error.code().name
        if kind is errors.ModelServerUnavailable:
            return kind(f"The model server at {self._addresses} is not available: {details}")
        if kind is errors.DeadlineExceeded:
            return kind(
                f"No answer within {timeout_s:g} s from the model server at {self._addresses}"
            )
        if kind is errors.RejectedByModel and model.label and "label" in details:
            return errors.UnknownLabel(details)
        return kind(details)

    def _connect(self) -> None:
        if self._connected_pid == os.getpid():
            return
        with self._lock:
            if self._connected_pid != os.getpid():
                self._channel = grpc.insecure_channel(_target(self._addresses), CHANNEL_OPTIONS)
                self._prediction = PredictionServiceStub(self._channel)
                self._models = ModelServiceStub(self._channel)
                self._raw = functools.cache(self._channel.unary_unary)  # bytes in, bytes out
                self._connected_pid = os.getpid()

    def _remember(self, model: ModelSpec, entry: _Remembered) -> None:
        while len(self._remembered) >= 1000:  # names come from clients
            self._remembered.pop(next(iter(self._remembered)), None)
        self._remembered[model] = entry

    def _forget_if_replaced(self, model: ModelSpec, version: int) -> None:
        known = self._remembered.get(model)
        if known and known.version != version:
            self._remembered.pop(model, None)


def _proto(model: ModelSpec, signature_name: str = "") -> serving.ModelSpec:
    proto = serving.ModelSpec(name=model.name, signature_name=signature_name)
    if model.version is not None:
        proto.version.value = model.version
    elif model.label is not None:
        proto.version_label = model.label
    return proto


def _target(addresses: str) -> str:
    """gRPC's name for the addresses; a single host is resolved again when a connection is lost."""
    hosts = [address.strip() for address in addresses.split(",") if address.strip()]
    if len(hosts) == 1:
        return f"dns:///{hosts[0]}"
    return "ipv4:" + ",".join(itertools.chain.from_iterable(map(_resolved, hosts)))


def _resolved(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise errors.ModelServerUnavailable(f"{address} cannot be resolved: {error}") from None
    return [f"{ip}:{port}" for ip in dict.fromkeys(entry[4][0] for entry in found)]
