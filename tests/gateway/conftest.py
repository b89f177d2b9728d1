"""A channel to a gateway that answers gRPC."""

from collections.abc import Iterator

import grpc
import pytest


@pytest.fixture(scope="module")
def channel(grpc_gateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(grpc_gateway[1]) as channel:
        yield channel
