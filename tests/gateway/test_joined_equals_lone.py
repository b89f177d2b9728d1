"""Requests of every kind at once get what each gets alone: its answer, or its own error.

At 64 connections over HTTP and gRPC, with deadlines that hold and that do not, while a version of
one model comes and goes.
"""

import io
import itertools
import json
import math
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import grpc
import numpy as np
import pytest
import requests
from PIL import Image

from sluice.wire.oip_tensors import datatype_of, encode_raw
from sluice.wire.protos.inference_pb2 import ModelInferRequest, ModelInferResponse
from sluice.wire.protos.serving_pb2 import (
    ModelSpec,
    PredictRequest,
    PredictResponse,
)
from sluice.wire.tensors import decode_tensor, encode_tensor

SEED = 13
CONNECTIONS = 64
F4 = np.float32
TOO_LATE = {"504", "DEADLINE_EXCEEDED", "503", "UNAVAILABLE"}  # where it is too late to begin, 503
PREDICT = "/tensorflow.serving.PredictionService/Predict"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Question:
    """A request as bytes. `versions`: those of its model that may answer, where it names none."""

    way: str
    path: str  # a gRPC method's where there are no headers
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    timeout_ms: int = 30_000
    versions: tuple["Question", ...] = ()


@dataclass(frozen=True)
class Outcome:
    """An answer's numbers by name, or an error's words; and the version that says it answered."""

    status: str
    values: object
    version: str = ""


def arrays_of(document):
    """Every number and string of a JSON document, in its order."""
    if isinstance(document, dict):
        return {name: arrays_of(each) for name, each in sorted(document.items())}
    return [arrays_of(each) for each in document] if isinstance(document, list) else document


def same(one, other):
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5)
    return one == other


class Asker:
    """One HTTP connection and one gRPC connection to a gateway."""

    def __init__(self, url, address):
        self._url, self._session = url, requests.Session()
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])

    def ask(self, question):
        return self._grpc(question) if question.way.endswith("grpc") else self._http(question)

    def close(self):
        self._session.close()
        self._channel.close()

    def _http(self, question):
        headers = {**dict(question.headers), "X-Request-Timeout-Ms": str(question.timeout_ms)}
        reply = self._session.post(
            self._url + question.path, data=question.body, headers=headers, timeout=60
        )
        status, document = str(reply.status_code), reply.content
        if reply.status_code == 200 and "Inference-Header-Content-Length" in reply.headers:
            length = int(reply.headers["Inference-Header-Content-Length"])
            values = [json.loads(document[:length]), document[length:].hex()]
            return Outcome(status, values, values[0]["model_version"])
        found = arrays_of(json.loads(document))
        return Outcome(status, found, found.get("model_version", ""))

    def _grpc(self, question):
        call = self._channel.unary_unary(question.path).future(
            question.body, timeout=question.timeout_ms / 1000
        )
        code = call.code()
        if code is not grpc.StatusCode.OK:
            return Outcome(code.name, call.details())
        if question.path == PREDICT:
            reply = PredictResponse.FromString(call.result())
            values = {
                name: decode_tensor(each).tolist() for name, each in sorted(reply.outputs.items())
            }
            return Outcome("OK", values, str(reply.model_spec.version.value))
        reply = ModelInferResponse.FromString(call.result())
        raw = [each.hex() for each in reply.raw_output_contents]
        names = [each.name for each in reply.outputs]
        return Outcome("OK", dict(zip(names, raw, strict=True)), reply.model_version)


class Questions:
    """Makes them, seeded."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)

    def one(self):
        kinds = [self._affine] * 4 + [self._swap] * 3 + [self._picky] * 3
        kinds += [self._pair, self._dtypes, self._echo, self._unbatched, self._liar, self._broken]
        question = self._random.choice(kinds)()
        if self._random.random() < 0.05:
            question = replace(question, timeout_ms=self._random.choice([1, 3, 10]))
        return question

    def _floats(self, *shape):
        return self._numbers.uniform(-50, 50, shape).astype(F4)

    def _rows(self):
        return self._random.choice([1, 1, 1, 2, 3, 7])

    def _affine(self):
        where = [{}, {}, {}, {"version": 1}, {"version": 2}, {"label": "stable"}]
        where += [{"label": "canary"}, {"version": 9}, {"label": "unheard"}]
        return self._ask("affine", {"x": self._floats(self._rows())}, **self._random.choice(where))

    def _swap(self):
        version = self._random.choice([None, None, 1, 2])
        inputs, way = {"x": self._floats(self._rows())}, self._way()
        if version is not None:
            return self._ask("swap", inputs, way=way, version=version)
        each = tuple(self._ask("swap", inputs, way=way, version=number) for number in (1, 2, 3))
        return replace(self._ask("swap", inputs, way=way), versions=each)

    def _picky(self):
        x = self._floats(self._rows())
        if self._random.random() < 0.3:
            x[-1] = self._random.randrange(101, 100_000)
        return self._ask("picky", {"x": x})

    def _liar(self):
        return self._ask("liar", {"x": self._floats(self._rows())}, way=self._way(rows=False))

    def _pair(self):
        rows = self._rows()
        inputs = {"image": self._floats(rows, 2, 2, 1), "meta": self._floats(rows, 3)}
        if self._random.random() < 0.2:
            inputs["meta"] = self._floats(rows + 1, 3)
        return self._ask("pair", inputs, way=self._way(rows=len(inputs["meta"]) == rows))

    def _dtypes(self):
        rows = self._rows()
        text = np.empty(rows, object)
        text[:] = [f"word {self._random.randrange(1000)}".encode() for _ in range(rows)]
        inputs = {
            "i32": self._numbers.integers(-1000, 1000, rows, np.int32),
            "i64": self._numbers.integers(-(2**60), 2**60, rows, np.int64),
            "u8": self._numbers.integers(0, 255, rows, np.uint8),
            "f64": self._numbers.uniform(-1, 1, rows),
            "flag": self._numbers.integers(0, 2, rows).astype(bool),
            "text": text,
        }
        return self._ask("dtypes", inputs)

    def _echo(self):
        signature = self._random.choice(["serving_default", "total", "nope"])
        inner = self._random.choice([(2, 3), (2, 3), (2, 3), (2, 2), (3,)])
        return self._ask("echo", {"matrix": self._floats(self._rows(), *inner)}, signature)

    def _unbatched(self):
        inputs = {"x": self._floats(self._rows(), 2)}
        return self._ask("unbatched", inputs, way=self._way(rows=False))

    def _broken(self):
        name = f"model{self._random.randrange(1000)}"
        return self._random.choice(
            [
                self._ask(name, {"x": self._floats(1)}),
                self._ask("affine", {f"x{self._random.randrange(9)}": self._floats(1)}),
                Question("tfs", "/v1/models/affine:predict", b'{"instances": [1.0'),
                Question("tfs", "/v1/models/affine:predict", b'{"instances": [[1], 2]}'),
                Question("oip", "/v2/models/affine/infer", b'{"inputs": 1}'),
                Question("tfs-grpc", PREDICT, b"\xff" * 9),
            ]
        )

    def _way(self, rows=True):
        ways = ["columns", "oip", "oip-raw", "tfs-grpc", "oip-grpc", *(["rows"] * 2 * rows)]
        return self._random.choice(ways)

    def _ask(self, model, inputs, signature="serving_default", way=None, version=None, label=None):
        return getattr(self, f"_as_{(way or self._way()).replace('-', '_')}")(
            model, inputs, signature, version, label
        )

    def _as_rows(self, model, inputs, signature, version, label):
        rows = len(next(iter(inputs.values())))
        instances = [
            {name: jsonable(each)[row] for name, each in inputs.items()} for row in range(rows)
        ]
        return tfs(model, version, label, signature, instances=instances)

    def _as_columns(self, model, inputs, signature, version, label):
        columns = {name: jsonable(each) for name, each in inputs.items()}
        return tfs(model, version, label, signature, inputs=columns)

    def _as_oip(self, model, inputs, signature, version, label):
        tensors = [
            {**head, "data": [plain(each) for each in array.ravel().tolist()]}
            for head, array in heads(inputs)
        ]
        document = {"inputs": tensors, "parameters": {"signature_name": signature}}
        return Question("oip", v2(model, version, label), json.dumps(document).encode())

    def _as_oip_raw(self, model, inputs, signature, version, label):
        raw = [bytes(encode_raw(array)) for array in inputs.values()]
        tensors = [
            {**head, "parameters": {"binary_data_size": len(data)}}
            for (head, _), data in zip(heads(inputs), raw, strict=True)
        ]
        parameters = {"signature_name": signature, "binary_data_output": True}
        head = json.dumps({"inputs": tensors, "parameters": parameters}).encode()
        headers = (("Inference-Header-Content-Length", str(len(head))),)
        return Question("oip-raw", v2(model, version, label), head + b"".join(raw), headers)

    def _as_tfs_grpc(self, model, inputs, signature, version, label):
        spec = ModelSpec(name=model, signature_name=signature)
        if version is not None:
            spec.version.value = version
        elif label is not None:
            spec.version_label = label
        request = PredictRequest(model_spec=spec)
        for name, array in inputs.items():
            content = array.dtype != object and self._random.random() < 0.5
            request.inputs[name].CopyFrom(encode_tensor(array, content=content))
        return Question("tfs-grpc", PREDICT, request.SerializeToString(deterministic=True))

    def _as_oip_grpc(self, model, inputs, signature, version, label):
        request = ModelInferRequest(model_name=model, model_version=str(version or label or ""))
        request.parameters["signature_name"].string_param = signature
        for head, array in heads(inputs):
            request.inputs.add(**head)
            request.raw_input_contents.append(bytes(encode_raw(array)))
        return Question("oip-grpc", INFER, request.SerializeToString(deterministic=True))


def plain(value):
    return value.decode() if isinstance(value, bytes) else value


def jsonable(array):
    return [plain(each) for each in array.tolist()] if array.ndim == 1 else array.tolist()


def heads(inputs):
    for name, array in inputs.items():
        head = {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        yield head, array


def tfs(model, version, label, signature, **document):
    where = f"/versions/{version}" if version else f"/labels/{label}" if label else ""
    body = json.dumps({"signature_name": signature, **document}).encode()
    return Question("tfs", f"/v1/models/{model}{where}:predict", body)


def v2(model, version, label):
    chosen = version or label
    return f"/v2/models/{model}{f'/versions/{chosen}' if chosen else ''}/infer"


@pytest.fixture(scope="module")
def stack(own_models, own_modelserver, launch_grpc_gateway):
    """(a GatewayProcess, its gRPC address, the directory of `swap`'s versions)."""
    gateway, address = launch_grpc_gateway(own_modelserver.address, metadata_ttl_s=1)
    return gateway, address, own_models / "swap"


@contextmanager
def coming_and_going(version, gateway):
    """The directory of a version is moved away and back, over and over, as the model server takes
    notice."""
    away, stop = version.with_name("away"), threading.Event()
    url = f"{gateway.url}/v1/models/swap/versions/3"

    def is_there():
        states = requests.get(url, timeout=30).json().get("model_version_status", [])
        return any(each["state"] == "AVAILABLE" for each in states)

    def until(there):
        deadline = time.monotonic() + 60
        while is_there() is not there:
            assert time.monotonic() < deadline, "the model server took no notice"
            time.sleep(0.1)

    def swap():
        while not stop.is_set():
            version.rename(away)
            until(False)
            stop.wait(0.5)
            away.rename(version)
            until(True)
            stop.wait(0.5)

    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(swap)
        try:
            yield
        finally:
            stop.set()
            swapping.result()


def check_equal(stack, count, seed):
    gateway, address, swap = stack
    made = Questions(seed)
    questions = [made.one() for _ in range(count)]
    lone = Asker(gateway.url, address)

    def alone(question):
        generous = replace(question, timeout_ms=30_000)
        if question.versions:
            return [lone.ask(each) for each in question.versions]
        return [lone.ask(generous)]

    expected = [alone(question) for question in questions]
    before = joined(gateway)
    askers = [Asker(gateway.url, address) for _ in range(CONNECTIONS)]
    seen = set()
    with coming_and_going(swap / "3", gateway), ThreadPoolExecutor(CONNECTIONS) as pool:
        deadline = time.monotonic() + 120
        for round_ in itertools.count():
            outcomes = list(
                pool.map(
                    lambda index: [
                        askers[index].ask(question) for question in questions[index::CONNECTIONS]
                    ],
                    range(CONNECTIONS),
                )
            )
            for index, found in enumerate(outcomes):
                for question, outcome, wanted in zip(
                    questions[index::CONNECTIONS],
                    found,
                    expected[index::CONNECTIONS],
                    strict=True,
                ):
                    check(question, outcome, wanted)
                    if question.versions:
                        seen.add(outcome.version)
            if {"2", "3"} <= seen or round_ > 100:
                break
            assert time.monotonic() < deadline, f"only {seen} ever answered"
    for asker in (lone, *askers):
        asker.close()
    after = joined(gateway)
    requests_, calls = (now - then for now, then in zip(after, before, strict=True))
    assert calls < requests_ * 0.9, "hardly anything was joined"


def check(question, outcome, wanted):
    if question.timeout_ms < 1000 and outcome.status in TOO_LATE:
        return
    assert any(
        outcome.status == each.status
        and same(outcome.values, each.values)
        and outcome.version == each.version
        for each in wanted
    ), f"{question}: {outcome}, and alone {wanted}"


def joined(gateway, *names):
    """(predictions answered, calls that answered them) so far, or what else is counted."""
    time.sleep(0.3)  # the last of them are written down within a tenth of a second
    text = requests.get(f"{gateway.url}/metrics", timeout=30).text

    def total(name):
        found = re.findall(rf"^{name}{{.*}} (\S+)$", text, re.M)
        return sum(map(float, found))

    return [*map(total, names or ("sluice_joined_rows_count", "sluice_calls_total"))]


def test_a_damaged_file_spoils_no_other_that_it_was_joined_with(stack):
    gateway, *_ = stack
    counted = "sluice_joined_rows_sum", "sluice_joined_rows_count"
    before = joined(gateway, *counted)

    def ask(place):
        file = png_of_third(place % 3)
        reply = requests.post(
            f"{gateway.url}/v1/models/why:predict",
            data=file[:-20] if place % 8 == 0 else file,
            timeout=30,
        )
        return reply.json()["predictions"][0]["label"] if reply.ok else reply.status_code

    deadline = time.monotonic() + 120
    rows = calls = 0
    while rows <= calls:
        assert time.monotonic() < deadline, "nothing was joined"
        with ThreadPoolExecutor(32) as pool:
            for place, answer in enumerate(pool.map(ask, range(96))):
                wanted = 400 if place % 8 == 0 else place % 3
                assert (answer if place % 8 == 0 else np.argmax(answer)) == wanted
        rows, calls = np.subtract(joined(gateway, *counted), before)


def png_of_third(third):
    """A PNG file [6, 6] of random darkness whose third from the left is white."""
    pixels = np.random.default_rng().integers(60, size=(6, 6), dtype=np.uint8)
    pixels[:, 2 * third : 2 * third + 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_each_of_600_gets_what_it_gets_alone(stack):
    check_equal(stack, 600, SEED)


@pytest.mark.slow
def test_each_of_10_000_gets_what_it_gets_alone(stack):
    check_equal(stack, 10_000, SEED + 1)
