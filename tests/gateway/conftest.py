"""A channel to a gateway that answers gRPC, and a model server that waits for the test's word."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    ModelServerConfig,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from tests.gateway.rollouts import Door, copy_versions


@pytest.fixture(scope="session")
def own_models(
    gateway_models: Path, conformance_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Copies of the models of make_models.py, and models.config with these and the recorded."""
    directory = tmp_path_factory.mktemp("own-models")
    shutil.copytree(gateway_models, directory, dirs_exist_ok=True)
    copy_versions(conformance_models, directory, all_of_them=False)
    config = text_format.Parse(
        (conformance_models / "models.config").read_text(), ModelServerConfig()
    )
    for path in sorted({*directory.iterdir()} - {directory / "later"}):
        config.model_config_list.config.add(
            name=path.name, base_path=str(path), model_platform="tensorflow"
        ).model_version_policy.all.SetInParent()
    (directory / "models.config").write_text(text_format.MessageToString(config))
    return directory


@pytest.fixture(scope="session")
def own_modelserver(own_models: Path, launch_modelserver):
    """The twin before `own_models`, which looks at them every second."""
    return launch_modelserver(
        f"--model_config_file={own_models}/models.config",
        "--allow_version_labels_for_unavailable_models=true",
        "--file_system_poll_wait_seconds=1",
    )


@pytest.fixture(scope="session")
def door(conformance_models, own_modelserver, launch_grpc_gateway, tmp_path_factory) -> Door:
    """A gateway that follows the rollouts of the models in rollouts.py."""
    repository = tmp_path_factory.mktemp("rollouts")
    copy_versions(conformance_models, repository, all_of_them=True)
    samples = repository.with_name(f"{repository.name}-samples")
    gateway, address = launch_grpc_gateway(
        own_modelserver.address,
        model_repository=repository,
        shadow_dir=samples,
        cache_models="kept",
        cors_origins="http://a.b",
    )
    return Door(gateway.url, address, repository, samples)


@pytest.fixture(scope="module")
def channel(grpc_gateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(grpc_gateway[1]) as channel:
        yield channel


class SlowModelServer(serving_pb2_grpc.PredictionServiceServicer):
    """Answers Predict with its own input when `go` is set, and remembers what it saw of each
    call. With a `refusal` it answers that at once."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """As if it were new."""
        self.go, self.arrived, self.cancelled = (threading.Event() for _ in range(3))
        self.contexts: list[tuple[dict[str, str], float]] = []
        self.version, self.metadata_calls = 0, 0
        self.refusal: grpc.StatusCode | None = None

    def finish(self) -> None:
        """Let go of every call."""
        self.go.set()
        deadline = time.monotonic() + 30
        while self.in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def GetModelMetadata(  # noqa: N802
        self, request: GetModelMetadataRequest, _: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        self.metadata_calls += 1
        signatures = SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for tensor in (signature.inputs["x"], signature.outputs["y"]):
            tensor.dtype = 1
            tensor.tensor_shape.dim.add(size=-1)
        reply = GetModelMetadataResponse(model_spec=request.model_spec)
        reply.model_spec.version.value = self.version
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def Predict(  # noqa: N802
        self, request: PredictRequest, context: grpc.ServicerContext
    ) -> PredictResponse:
        go, cancelled = self.go, self.cancelled
        context.add_callback(lambda: None if go.is_set() else cancelled.set())
        self.contexts.append((dict(context.invocation_metadata()), context.time_remaining()))
        self.arrived.set()
        if self.refusal is not None:
            context.abort(self.refusal, "as the test wants it\n\t [[{{node as_TensorFlow_adds}}]]")
        self.in_flight += 1
        go.wait(30)
        self.in_flight -= 1
        reply = PredictResponse(model_spec=request.model_spec)
        reply.model_spec.version.value = self.version
        reply.outputs["y"].CopyFrom(request.inputs["x"])
        return reply


@pytest.fixture(scope="module")
def slow_server() -> Iterator[tuple[SlowModelServer, str]]:
    """A slow model server, and its address."""
    service, server = SlowModelServer(), grpc.server(ThreadPoolExecutor(16))
    serving_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture
def slow(
    slow_server: tuple[SlowModelServer, str],
) -> Iterator[tuple[SlowModelServer, str]]:
    """The same, as if it were new."""
    slow_server[0].reset()
    yield slow_server
    slow_server[0].finish()
