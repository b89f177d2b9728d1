"""A gateway that answers gRPC, and ways to call it."""
import socket
from collections.abc import Callable, Iterator

import grpc
import pytest


@pytest.fixture(scope="session")
def launch_grpc_gateway(launch_gateway) -> Callable[..., tuple[object, str]]:
    """`launch_grpc_gateway(model_server_address, **settings)` -> (GatewayProcess, gRPC address)."""
    def launch(model_server: str, **settings: object) -> tuple[object, str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        gateway = launch_gateway(model_server, grpc_port=port, **settings)
        gateway.wait_for("Answering gRPC")
        return gateway, f"127.0.0.1:{port}"

    return launch


@pytest.fixture(scope="session")
def grpc_gateway(launch_grpc_gateway, modelserver) -> tuple[object, str]:
    """The gateway before the twin that serves the recorded models, and its gRPC address."""
    return launch_grpc_gateway(modelserver.address, models="affine")


@pytest.fixture(scope="module")
def channel(grpc_gateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(grpc_gateway[1]) as channel:
        yield channel
