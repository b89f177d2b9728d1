"""Model directories made of the recorded models, and clients of a twin that watches them."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import (
    GetModelStatusRequest,
    ModelSpec,
    ModelVersionStatus,
    PredictionLog,
    PredictRequest,
)
from sluice.wire.tensors import decode_tensor, encode_tensor
from sluice.wire.tfrecords import frame

State = ModelVersionStatus.State


class Client:
    """What a client of the twin does, in one line each. `affine` models map x to y."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.predictions = serving_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = serving_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, model: str, x: float = 1.0, **spec: object) -> float:
        """y of the affine model: 2.5 from version 1, 3.5 from 2, 2.0 from 3, for x = 1."""
        reply = self.predictions.Predict(predict_request(model, x, **spec), timeout=30)
        return float(decode_tensor(reply.outputs["y"])[0])

    def status(self, model: str) -> dict[int, ModelVersionStatus]:
        request = GetModelStatusRequest(model_spec=ModelSpec(name=model))
        reply = self.models.GetModelStatus(request, timeout=30)
        return {status.version: status for status in reply.model_version_status}

    def states(self, model: str) -> dict[int, str]:
        """By version; empty for a model that is not known."""
        try:
            return {
                number: State.Name(status.state) for number, status in self.status(model).items()
            }
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
            return {}


def predict_request(model: str, x: float = 1.0, **spec: object) -> PredictRequest:
    request = PredictRequest(model_spec=ModelSpec(name=model, **spec))
    request.inputs["x"].CopyFrom(encode_tensor(np.array([x], "f4")))
    return request


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


class Models:
    """A directory of models, filled with copies of the recorded ones."""

    def __init__(self, directory: Path, recorded: Path) -> None:
        self.directory, self._recorded = directory, recorded

    def publish(
        self, source: str, model: str, version: int, warmup: list[bytes] | None = None
    ) -> Path:
        """Copy `affine/1`, say, to `model`/`version`: whole or not at all.

        `warmup`: serialized PredictionLogs, for assets.extra.
        """
        target = self.directory / model / str(version)
        beside = self.directory / model / f"{version}.tmp"
        shutil.copytree(self._recorded / source, beside)
        if warmup is not None:
            (beside / "assets.extra").mkdir()
            (beside / "assets.extra" / "tf_serving_warmup_requests").write_bytes(tfrecords(*warmup))
        return beside.rename(target)

    def remove(self, model: str) -> None:
        shutil.rmtree(self.directory / model)


@pytest.fixture(scope="session")
def own_models(made_once) -> Path:
    """The models of make_models.py beside this file."""
    return made_once("own-models", [Path(__file__).with_name("make_models.py")])


@pytest.fixture(scope="module")
def models(tmp_path_factory, conformance_models) -> Models:
    return Models(tmp_path_factory.mktemp("repository"), conformance_models)


@pytest.fixture(scope="module")
def watcher(launch_modelserver, models):
    """A twin that looks at `models` ten times a second; empty when it starts."""
    server = launch_modelserver(
        f"--model_repository={models.directory}", "--file_system_poll_wait_seconds=0.1"
    )
    yield server
    assert server.terminate() == 0, server.log


@pytest.fixture
def client(watcher) -> Iterator[Client]:
    client = Client(watcher.address)
    yield client
    client.channel.close()


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """`until(condition)`: wait for it, or fail."""
    return wait_until


@pytest.fixture(scope="session")
def predict_log() -> Callable[..., bytes]:
    """`predict_log(model, x, **spec)`: a warm-up record."""

    def record(*arguments: object, **spec: object) -> bytes:
        log = PredictionLog()
        log.predict_log.request.CopyFrom(predict_request(*arguments, **spec))
        return log.SerializeToString()

    return record


def tfrecords(*records: bytes) -> bytes:
    """A TFRecord file."""
    return b"".join(map(frame, records))
