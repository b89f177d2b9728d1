"""Every way of asking for a prediction with credentials, and what comes of it."""

import json
from collections.abc import Callable
from typing import NamedTuple

import grpc
import numpy as np
import requests

from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.inference_pb2_grpc import GRPCInferenceServiceStub
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import encode_tensor

CODES = {
    200: grpc.StatusCode.OK,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
STATUS_OF = {code: status for status, code in CODES.items()}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
NO_PICTURES = 415  # what the model of these tests says to one, once it is let in


class Reply(NamedTuple):
    """HTTP's status, or the one that says the same as a gRPC code."""

    status: int
    message: str
    headers: dict[str, str]


def _http(path: str, **body: object) -> Callable[[str, str, dict[str, str]], Reply]:
    def ask(url: str, model: str, headers: dict[str, str]) -> Reply:
        types = body.get("headers", {})
        reply = requests.post(
            f"{url}{path.format(model=model)}",
            data=body.get("data"),
            headers=types | headers,
            timeout=30,
        )
        status = 200 if reply.status_code == NO_PICTURES else reply.status_code
        message = "" if status == 200 else reply.json()["error"]
        assert status == 200 or reply.json() == {"error": message}
        return Reply(status, message, {name.lower(): text for name, text in reply.headers.items()})

    return ask


def _grpc(call: Callable[[grpc.Channel, str], tuple[Callable[..., object], object]]):
    def ask(address: str, model: str, headers: dict[str, str]) -> Reply:
        metadata = [(name.lower(), text) for name, text in headers.items()]
        with grpc.insecure_channel(address) as channel:
            method, request = call(channel, model)
            try:
                method(request, timeout=30, metadata=metadata)
            except grpc.RpcError as error:
                return Reply(
                    STATUS_OF[error.code()], error.details(), dict(error.trailing_metadata())
                )
        return Reply(200, "", {})

    return ask


def _predict(channel: grpc.Channel, model: str) -> tuple[Callable[..., object], object]:
    request = PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([1, 2])))
    return PredictionServiceStub(channel).Predict, request


def _infer(channel: grpc.Channel, model: str) -> tuple[Callable[..., object], object]:
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="x", shape=[2], datatype="FP32")
    request.raw_input_contents.append(np.float32([1, 2]).tobytes())
    return GRPCInferenceServiceStub(channel).ModelInfer, request


JSON = {"headers": {"Content-Type": "application/json"}}
OIP = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}
HTTP = {
    "json": _http("/v1/models/{model}:predict", data='{"instances": [1.0, 2.0]}', **JSON),
    "image": _http("/v1/models/{model}:predict", data=PNG, headers={"Content-Type": "image/png"}),
    "oip": _http("/v2/models/{model}/infer", data=json.dumps(OIP), **JSON),
}
GRPC = {"predict": _grpc(_predict), "infer": _grpc(_infer)}
CASES = [(way, dialect) for way in ("front", "wsgi") for dialect in HTTP]
CASES += [("grpc", dialect) for dialect in GRPC]
