"""A twin and a gateway that serve the recorded models and `digits`, and clients of every kind."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format

from sluice import AsyncClient, Client
from sluice.wire.protos.serving_pb2 import ModelServerConfig
from tests.processes import free_port


class Awaited:
    """An AsyncClient whose methods wait for their results, so that one suite tests both."""

    def __init__(self, url: str, **options: object) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, **options)

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


# By name: where to, and what with. The model server and the gateway speak the same gRPC, and the
# gateway's front and a plain WSGI server the same HTTP.
KINDS = {
    "http": ("http", Client),
    "http-async": ("http", Awaited),
    "http-plain": ("http-plain", Client),
    "grpc": ("grpc", Client),
    "grpc-async": ("grpc", Awaited),
    "grpc-gateway": ("grpc-gateway", Client),
}


@pytest.fixture(scope="session")
def urls(
    launch_modelserver, launch_gateway, conformance_models, published, tmp_path_factory
) -> dict[str, str]:
    """By the first of each of KINDS, where the recorded models and `digits` are served."""
    config = text_format.Parse(
        (conformance_models / "models.config").read_text(), ModelServerConfig()
    )
    config.model_config_list.config.add(
        name="digits", base_path=str(published), model_platform="tensorflow"
    )
    path = tmp_path_factory.mktemp("client") / "models.config"
    path.write_text(text_format.MessageToString(config))
    server = launch_modelserver(
        f"--model_config_file={path}", "--allow_version_labels_for_unavailable_models=true"
    )
    port = free_port()
    gateway = launch_gateway(server.address, model_config_file=path, grpc_port=port)
    gateway.wait_for("Answering gRPC")
    return {
        "http": gateway.url,
        "http-plain": launch_gateway(server.address, "wsgi", model_config_file=path).url,
        "grpc": f"grpc://{server.address}",
        "grpc-gateway": f"grpc://127.0.0.1:{port}",
    }


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def connect(kind: str) -> Iterator[Callable[..., Client]]:
    """`connect(url, **options)` -> a client of this kind; closed at the end."""
    opened = []

    def open_client(url: str, **options: object) -> Client:
        opened.append(KINDS[kind][1](url, **options))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def scheme(kind: str) -> str:
    return kind.partition("-")[0]


@pytest.fixture
def client(connect: Callable[..., Client], urls: dict[str, str], kind: str) -> Client:
    return connect(urls[KINDS[kind][0]])


@pytest.fixture(scope="session")
def samples(published: Path) -> list[Path]:
    """An image file of each digit."""
    return [published / f"1/samples/{digit}-0.png" for digit in range(10)]
