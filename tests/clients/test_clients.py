"""Real clients of the Open Inference Protocol against the gateway, over HTTP and gRPC.

The scripts beside this file make the calls and hold the answers; each check they pass is a line.
"""
import pytest

pytestmark = pytest.mark.slow  # installs the clients


@pytest.mark.parametrize("name", ["triton", "kserve"])
def test_every_check_of_the_client_passes(run_client, grpc_gateway, name):
    gateway, address = grpc_gateway
    passed = run_client(name, gateway.url, address).splitlines()
    assert len(passed) > 5
