"""Who is asked: a version, a label or what is live, at a model server or a gateway."""

import re
import time
from typing import Any, NamedTuple

import grpc
import numpy as np

from service.replay.answers import outputs_of, version_of
from service.replay.changes import Reply
from sluice.wire.channels import CHANNEL_OPTIONS
from sluice.wire.contract import DEFAULT_SIGNATURE, PIXELS_SIGNATURE
from sluice.wire.labels import label_fault
from sluice.wire.model_ref import ModelRef
from sluice.wire.pixels import UINT8
from sluice.wire.prediction_logs import (
    CLASSIFY_LOG,
    MULTI_INFERENCE_LOG,
    PREDICT_LOG,
    REGRESS_LOG,
    Logged,
)
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.reasons import is_lost, is_out_of_memory, plain_reason
from sluice.wire.tensors import decode_tensor, encode_tensor

METHODS = {
    PREDICT_LOG: "Predict",
    CLASSIFY_LOG: "Classify",
    REGRESS_LOG: "Regress",
    MULTI_INFERENCE_LOG: "MultiInference",
}


_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/\s]+):\d{1,5}")
# TensorFlow Serving's words for a model, version or label that it does not serve.
_NOT_SERVED = re.compile("Servable not found|servable version label")
# Of whoever answers there, or does not, and not of the version that is asked.
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_TOO_LARGE = re.compile("(message|body) (is )?larger than")  # for a limit, whoever asks
_REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)


class BadSide(ValueError):
    """Text that names neither a version, a label, nor an address."""


class Place(NamedTuple):
    """Where a request goes: to `version` or `label`, or, with neither, to what is live there.

    >>> Place.read("stable", "127.0.0.1:8500")
    Place(address='127.0.0.1:8500', version=None, label='stable')
    >>> Place.read("gpu-1:8500/4", "127.0.0.1:8500")
    Place(address='gpu-1:8500', version=4, label=None)
    """

    address: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def read(cls, text: str, address: str) -> "Place":
        """VERSION, LABEL, HOST:PORT, HOST:PORT/VERSION or HOST:PORT/LABEL; `address` where there is
        none in it. Raises BadSide."""
        before, slash, after = text.rpartition("/")
        named, wanted = (before, after) if slash else (text, "") if ":" in text else ("", text)
        if named and not _ADDRESS.fullmatch(named):
            raise BadSide(f"{text!r}: an address is HOST:PORT, as in {address}")
        place = cls(named or address)
        if wanted.isascii() and wanted.isdigit():
            return place._replace(version=int(wanted))
        if wanted and label_fault(wanted):
            raise BadSide(f"{text!r} is no version, no label ({label_fault(wanted)}), no HOST:PORT")
        return place._replace(label=wanted or None)

    def __str__(self) -> str:
        which = "live" if self.version is None and not self.label else self.label or self.version
        return f"{which} at {self.address}"


class Away(Exception):
    """There is nobody to ask, which says nothing of how well a version answers."""


class Lost(Away):
    """A server was lost under the call to `side`, and may have died of it."""

    def __init__(self, told: str, side: "Side", reply: Reply) -> None:
        super().__init__(told)
        self.side, self.reply = side, reply


class Side:
    """One of the two that are compared, over gRPC; to be closed."""

    def __init__(self, place: Place, api_key: str | None, timeout_s: float) -> None:
        self.place = place
        self._timeout_s = timeout_s
        self._metadata = [("authorization", f"Bearer {api_key}")] if api_key else []
        self._channel = grpc.insecure_channel(place.address, options=CHANNEL_OPTIONS)
        self._stub = PredictionServiceStub(self._channel)

    def ask(self, logged: Logged) -> Reply:
        """Raises Away, and of that Lost."""
        request = self._addressed(logged)
        method = getattr(self._stub, METHODS[logged.kind])
        began = time.perf_counter()
        try:
            answer = method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            if logged.signature == PIXELS_SIGNATURE and error.code() in _REFUSED:
                return self.ask(_by_default(logged))
            return self._refused(error, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        return Reply(outputs_of(answer), version_of(answer), seconds)

    def close(self) -> None:
        self._channel.close()

    def _addressed(self, logged: Logged) -> Any:
        """A copy of the request for this side's version."""
        request = type(logged.request)()
        request.CopyFrom(logged.request)
        for spec in specs_of(request):
            model = ModelRef(spec.name, self.place.version, self.place.label)
            spec.CopyFrom(model.to_proto(spec.signature_name))
        return request

    def _refused(self, error: Any, seconds: float) -> Reply:
        code, reason = error.code(), plain_reason(error.details() or "")
        reply = Reply({}, None, seconds, code.name, reason)
        told = f"{self.place} cannot be asked: {reason}"
        if code is grpc.StatusCode.CANCELLED or (code in _AWAY and is_lost(reason)):
            raise Lost(told, self, reply) from None
        is_its_own = _TOO_LARGE.search(reason) or is_out_of_memory(reason)
        if (code in _AWAY and not is_its_own) or _NOT_SERVED.search(reason):
            raise Away(told) from None
        return reply


def ask_both(logged: Logged, before: Side, after: Side, turn: int) -> tuple[Reply, Reply]:
    """What both say, one after the other, and each first in turn, so that neither's time is that of
    the one who finds the other's caches warm. Raises Away."""
    if turn % 2:
        now = after.ask(logged)
        return before.ask(logged), now
    was = before.ask(logged)
    return was, after.ask(logged)


def specs_of(request: Any) -> list[serving.ModelSpec]:
    """Who a request of any kind is for; of several tasks each says it.

    >>> request = serving.PredictRequest(model_spec=serving.ModelSpec(name="digits"))
    >>> [spec.name for spec in specs_of(request)]
    ['digits']
    """
    return [each.model_spec for each in getattr(request, "tasks", [request])]


def _by_default(logged: Logged) -> Logged:
    """A request for `pixels` by `serving_default`, as its client meant it: not every version has
    the former."""
    request = serving.PredictRequest()
    request.CopyFrom(logged.request)
    request.model_spec.signature_name = DEFAULT_SIGNATURE
    for tensor in request.inputs.values():
        array = decode_tensor(tensor)
        if array.dtype == UINT8:
            tensor.CopyFrom(encode_tensor(array.astype(np.float32), content=True))
    return logged._replace(request=request, signature=DEFAULT_SIGNATURE)
