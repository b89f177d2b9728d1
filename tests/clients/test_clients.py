"""Real clients of the Open Inference Protocol against the gateway, over HTTP and gRPC.

The scripts beside this file make the calls and hold the answers; each check they pass is a line.
"""

import re

import pytest

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("name", ["triton", "kserve"])
def test_every_check_of_the_client_passes(run_client, grpc_gateway, name):
    gateway, address = grpc_gateway
    passed = run_client(name, gateway.url, address).splitlines()
    assert len(passed) > 5


def test_every_answer_keeps_to_the_openapi_document(run_client, launch_gateway, modelserver):
    gateway = launch_gateway(modelserver.address, models="affine,pair,dtypes")
    assert re.search(r"\d{3,} generated, \d{3,} passed", run_client("schemathesis", gateway.url))


def test_no_body_that_a_fuzzer_thinks_of_breaks_the_gateway(run_client, modelserver):
    run_client("fuzz", modelserver.address, "-max_total_time=60")
