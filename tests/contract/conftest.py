"""Every dialect as the same thing: a model asked with arrays that answers arrays or refuses."""

import base64
import functools
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from flask import Flask

from service.gateway.app import create_app
from service.gateway.settings import Settings
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.inference_pb2_grpc import GRPCInferenceServiceStub
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import decode_tensor, encode_tensor

WAYS = ("front", "wsgi")  # of tests/processes.py

Arrays = dict[str, np.ndarray]
Post = Callable[..., requests.Response]

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
}
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}


class Refused(Exception):
    """An error answer: its HTTP status (or what stands for it) and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class InProcess:
    """The application itself as if it were a server: WSGI's calls, without a socket."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def post(self, path: str, **request: Any) -> requests.Response:
        given = self._app.test_client().post(path, **request)
        reply = requests.Response()
        reply.status_code, reply._content = given.status_code, given.data
        reply.headers.update(given.headers)
        return reply


class Place:
    """Which servable, in the spelling of a URL."""

    def __init__(self, model: str, version: int | None = None, label: str | None = None) -> None:
        self.model, self.version, self.label = model, version, label

    def v1(self) -> str:
        version = f"/versions/{self.version}" if self.version else ""
        return f"/v1/models/{self.model}{version}{f'/labels/{self.label}' if self.label else ''}"

    def v2(self) -> str:
        chosen = self.version or self.label
        return f"/v2/models/{self.model}{f'/versions/{chosen}' if chosen else ''}"


def _checked(reply: requests.Response) -> requests.Response:
    if reply.status_code != 200:
        raise Refused(reply.status_code, reply.json()["error"])
    return reply


def _jsonable(array: np.ndarray) -> object:
    if array.dtype != object:
        return array.tolist()
    return (
        np.array([{"b64": _b64(each)} for each in array.ravel()], object)
        .reshape(array.shape)
        .tolist()
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_json(value: object, like: np.ndarray) -> np.ndarray:
    def leaf(each: object) -> object:
        if isinstance(each, dict):
            return base64.b64decode(each["b64"])
        return each.encode() if isinstance(each, str) else each

    plain = np.array(value, object)
    flat = [leaf(each) for each in plain.ravel()]
    return np.array(flat, object).reshape(plain.shape).astype(like.dtype)


def rows(
    post: Post, place: Place, inputs: Arrays, outputs: Arrays, signature: str | None
) -> Arrays:
    count = max((len(array) for array in inputs.values() if array.ndim), default=1)
    body = {
        "instances": [
            {
                name: _jsonable(array[index : index + 1])[0]
                if array.dtype == object
                else array[index].tolist()
                for name, array in inputs.items()
            }
            for index in range(count)
        ]
    }
    if signature:
        body["signature_name"] = signature
    reply = _checked(post(f"{place.v1()}:predict", json=body)).json()
    answers = reply["predictions"]
    if len(outputs) == 1:
        (name,) = outputs
        return {name: _from_json(answers, outputs[name])}
    return {
        name: _from_json([row[name] for row in answers], like) for name, like in outputs.items()
    }


def columns(
    post: Post, place: Place, inputs: Arrays, outputs: Arrays, signature: str | None
) -> Arrays:
    body: dict[str, object] = {"inputs": {name: _jsonable(each) for name, each in inputs.items()}}
    if signature:
        body["signature_name"] = signature
    reply = _checked(post(f"{place.v1()}:predict", json=body)).json()
    found = {next(iter(outputs)): reply["outputs"]} if len(outputs) == 1 else reply["outputs"]
    return {name: _from_json(found[name], like) for name, like in outputs.items()}


def npz(post: Post, place: Place, inputs: Arrays, outputs: Arrays, signature: str | None) -> Arrays:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **{
            name: array.astype("S") if array.dtype == object else array
            for name, array in inputs.items()
        },
    )
    query = f"?signature_name={signature}" if signature else ""
    reply = _checked(
        post(
            f"{place.v1()}:predict{query}",
            data=buffer.getvalue(),
            headers={"Content-Type": "application/x-npz", "Accept": "application/x-npz"},
        )
    )
    with np.load(io.BytesIO(reply.content)) as found:
        return {name: found[name].astype(like.dtype) for name, like in outputs.items()}


def _tensor(name: str, array: np.ndarray) -> dict[str, object]:
    return {"name": name, "shape": list(array.shape), "datatype": DATATYPES[str(array.dtype)]}


def _parameters(signature: str | None) -> dict[str, object]:
    return {"parameters": {"signature_name": signature}} if signature else {}


def oip_json(
    post: Post, place: Place, inputs: Arrays, _outputs: Arrays, signature: str | None
) -> Arrays:
    document = {
        "inputs": [
            _tensor(name, array)
            | {
                "data": [each.decode() for each in array.ravel()]
                if array.dtype == object
                else array.ravel().tolist()
            }
            for name, array in inputs.items()
        ],
        **_parameters(signature),
    }
    reply = _checked(post(f"{place.v2()}/infer", json=document)).json()
    return {
        tensor["name"]: _from_json(tensor["data"], np.empty(0, DTYPES[tensor["datatype"]])).reshape(
            tensor["shape"]
        )
        for tensor in reply["outputs"]
    }


def oip_binary(
    post: Post, place: Place, inputs: Arrays, _outputs: Arrays, signature: str | None
) -> Arrays:
    raw = {
        name: b"".join(struct.pack("<I", len(each)) + each for each in array.ravel())
        if array.dtype == object
        else array.tobytes()
        for name, array in inputs.items()
    }
    head = json.dumps(
        {
            "inputs": [
                _tensor(name, array) | {"parameters": {"binary_data_size": len(raw[name])}}
                for name, array in inputs.items()
            ],
            "parameters": {"binary_data_output": True}
            | _parameters(signature).get("parameters", {}),
        }
    ).encode()
    reply = _checked(
        post(
            f"{place.v2()}/infer",
            data=head + b"".join(raw.values()),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
    )
    length = int(reply.headers["Inference-Header-Content-Length"])
    rest, found = reply.content[length:], {}
    for tensor in json.loads(reply.content[:length])["outputs"]:
        size = tensor["parameters"]["binary_data_size"]
        found[tensor["name"]] = _from_raw(rest[:size], tensor)
        rest = rest[size:]
    assert not rest
    return found


def _from_raw(raw: bytes, tensor: dict[str, object]) -> np.ndarray:
    if tensor["datatype"] != "BYTES":
        return np.frombuffer(raw, DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
    strings = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        strings.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return np.array(strings, object).reshape(tensor["shape"])


def tfs_grpc(
    address: str, place: Place, inputs: Arrays, _outputs: Arrays, signature: str | None
) -> Arrays:
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = place.model, signature or ""
    if place.version:
        request.model_spec.version.value = place.version
    elif place.label:
        request.model_spec.version_label = place.label
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(encode_tensor(array))
    reply = _called(
        address, lambda channel: PredictionServiceStub(channel).Predict(request, timeout=30)
    )
    return {name: decode_tensor(tensor) for name, tensor in reply.outputs.items()}


def oip_grpc(
    address: str, place: Place, inputs: Arrays, _outputs: Arrays, signature: str | None
) -> Arrays:
    request = ModelInferRequest(
        model_name=place.model, model_version=str(place.version or place.label or "")
    )
    if signature:
        request.parameters["signature_name"].string_param = signature
    for name, array in inputs.items():
        request.inputs.add(name=name, shape=array.shape, datatype=DATATYPES[str(array.dtype)])
        request.raw_input_contents.append(
            b"".join(struct.pack("<I", len(each)) + each for each in array.ravel())
            if array.dtype == object
            else array.tobytes()
        )
    reply = _called(
        address, lambda channel: GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    )
    return {
        tensor.name: _from_raw(raw, {"datatype": tensor.datatype, "shape": list(tensor.shape)})
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def _called(address: str, call: Callable[[grpc.Channel], Any]) -> Any:
    with grpc.insecure_channel(address) as channel:
        try:
            return call(channel)
        except grpc.RpcError as error:
            raise Refused(STATUS[error.code()], error.details()) from None


# The HTTP status that says the same as a gRPC code.
STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INTERNAL: 500,
}

HTTP: dict[str, Callable[..., Arrays]] = {
    each.__name__: each for each in (rows, columns, npz, oip_json, oip_binary)
}
GRPC: dict[str, Callable[..., Arrays]] = {each.__name__: each for each in (tfs_grpc, oip_grpc)}
DIALECTS = HTTP | GRPC


@pytest.fixture
def refused() -> type[Refused]:
    return Refused


@pytest.fixture
def place() -> type[Place]:
    return Place


# gRPC has its own port; HTTP is to be the same in every way that it can come in.
IN_PROCESS = "in process"
CASES = [(way, dialect, "serve") for way in (*WAYS, IN_PROCESS) for dialect in HTTP]
CASES += [("grpc", dialect, "serve") for dialect in GRPC]
CASES += [
    pytest.param((way, dialect, tags), marks=pytest.mark.slow)
    for tags in ("serve,bf16", "serve,gpu")
    for way, dialects in (("front", HTTP), ("grpc", GRPC))
    for dialect in dialects
]


@pytest.fixture(scope="session")
def served_by(made_once, launch_modelserver, launch_grpc_gateway) -> Callable[[str], Any]:
    """`served_by(tags)` -> the gateway and its gRPC address, before a twin that serves this graph
    of the recorded models."""

    @functools.cache
    def launch(tags: str) -> Any:
        models = made_once("models-of-three-graphs", [Path(__file__).parent / "make_models.py"])
        server = launch_modelserver(
            f"--model_config_file={models}/models.config",
            "--allow_version_labels_for_unavailable_models=true",
            "--check_input_shapes=false",
            f"--saved_model_tags={tags}",
        )
        return launch_grpc_gateway(server.address, models="affine,pair,echo")

    return launch


@pytest.fixture(scope="session")
def doors(gateways, grpc_gateway, modelserver, served_by) -> Callable[[str, str], Any]:
    """`doors(way, tags)` -> what a dialect's function is to be given first."""

    @functools.cache
    def door(way: str, tags: str) -> Any:
        gateway, grpc_address = grpc_gateway if tags == "serve" else served_by(tags)
        if way == "grpc":
            return grpc_address
        if way == IN_PROCESS:
            return InProcess(create_app(Settings(model_server=modelserver.address))).post
        url = gateway.url if way == "front" else gateways(way).url
        return lambda path, **request: requests.post(url + path, timeout=30, **request)

    return door


@pytest.fixture(params=CASES, ids=" ".join)
def ask(request, doors):
    """`ask(place, inputs, outputs, signature)` -> outputs; raises Refused. Once for each dialect
    in each way that it can come in, and by each graph that the models have.

    `outputs` says the names and dtypes to expect, for the dialects that do not carry them.
    """
    way, dialect, tags = request.param
    function = DIALECTS[dialect]

    def send(place: Place, inputs: Arrays, outputs: Arrays, signature: str | None = None) -> Arrays:
        return function(doors(way, tags), place, inputs, outputs, signature)

    send.dialect, send.tags = dialect, tags
    return send
