"""The twin as a process: ready when it says so, drained on SIGTERM, not started wrong."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.modelserver.__main__ import do_without_temporary_files, main
from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import GetModelStatusRequest, ModelSpec, PredictRequest
from sluice.wire.tensors import encode_tensor

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
def launch_slow(launch_modelserver, own_models):
    """Launch a twin for the model whose runs take `steps` rounds."""
    return partial(launch_modelserver, "--model_name=slow", f"--model_base_path={own_models}/slow")


def slow_call(channel, steps):
    request = PredictRequest(model_spec=ModelSpec(name="slow"))
    request.inputs["x"].CopyFrom(encode_tensor(np.ones(1, "f4")))
    request.inputs["steps"].CopyFrom(encode_tensor(np.array([steps], "i4")))
    return serving_pb2_grpc.PredictionServiceStub(channel).Predict.future(request, timeout=60)


def test_sigterm_finishes_what_was_accepted_and_refuses_what_comes_late(launch_slow):
    server = launch_slow("--drain_seconds=600")  # longer than anybody waits below
    answered, refused, ended = [], [], threading.Event()
    with grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        callers = [
            threading.Thread(target=call_on_and_on, args=(channel, answered, refused, ended))
            for _ in range(4)
        ]
        slow_call(channel, 1).result()
        for caller in callers:
            caller.start()
        accepted = slow_call(channel, 15_000)
        ask_status(channel)  # so that the one before it has arrived
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        server.process.send_signal(signal.SIGTERM)  # again, while the first is obeyed
        assert not accepted.done()
        assert accepted.code() == grpc.StatusCode.OK
        assert server.wait() == 0  # though there are those who never stop calling
        ended.set()
        for caller in callers:
            caller.join()
    assert answered
    assert {error.code() for error in refused} == {grpc.StatusCode.UNAVAILABLE}
    assert any("call another one" in error.details() for error in refused)
    assert "Stopped" in server.log


def test_the_drain_is_bounded(launch_slow):
    server = launch_slow("--drain_seconds=0.5")
    with grpc.insecure_channel(server.address) as channel:
        slow_call(channel, 1).result()
        endless = slow_call(channel, 2**30)
        ask_status(channel)  # so that the one before it has arrived
        time.sleep(0.3)
        assert server.terminate(timeout_s=20) == 0
        assert endless.code() == grpc.StatusCode.UNAVAILABLE
    assert "1 call(s) did not finish" in server.log


def ask_status(channel):
    method = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
    request = GetModelStatusRequest(model_spec=ModelSpec(name="slow")).SerializeToString()
    return method(request, timeout=30)


def call_on_and_on(channel, answered, refused, ended):
    while not ended.is_set():
        try:
            answered.append(ask_status(channel))
        except grpc.RpcError as error:
            refused.append(error)


@pytest.mark.parametrize(
    "service", ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
)
def test_health_is_told_overall_and_by_service(modelserver, service):
    with grpc.insecure_channel(modelserver.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        reply = health.Check(HealthCheckRequest(service=service), timeout=30)
    assert reply.status == SERVING


def test_a_server_that_cannot_begin_ends_with_1_and_the_reason(tmp_path, caplog):
    config = tmp_path / "models.config"
    config.write_text("model_config_list { config { nam")
    assert main([f"--model_config_file={config}"]) == 1
    assert f"Failed to start server. Error: Invalid protobuf file: '{config}': 1:" in caplog.text


def test_it_starts_where_nothing_can_be_written(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/directory"])
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()
    do_without_temporary_files()
    assert tempfile.gettempdir()  # TensorFlow's import asks for no more than a name


def restarted_with(**variables):
    """The process ids before and after `use_huge_pages`, and what GLIBC_TUNABLES is then."""
    code = (
        "import os; from service.modelserver.__main__ import use_huge_pages; "
        "use_huge_pages(); print(os.getpid(), os.environ['GLIBC_TUNABLES'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment | variables, stdout=subprocess.PIPE, text=True
    )
    after, tunables = process.communicate(timeout=60)[0].split()
    return process.pid, int(after), tunables


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_its_memory_is_in_huge_pages_unless_told_otherwise(modelserver):
    asked = "glibc.malloc.hugetlb=1"
    before, after, tunables = restarted_with()
    assert (after, tunables) == (before, asked)
    assert restarted_with(GLIBC_TUNABLES="glibc.malloc.check=0")[2] == "glibc.malloc.check=0"
    variables = Path(f"/proc/{modelserver.process.pid}/environ").read_text().split("\0")
    assert f"GLIBC_TUNABLES={os.environ.get('GLIBC_TUNABLES', asked)}" in variables


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_it_has_no_keras_nor_what_that_brings(modelserver):
    mapped = Path(f"/proc/{modelserver.process.pid}/maps").read_text()
    assert "/tensorflow/" in mapped
    assert [each for each in ("/matplotlib/", "/sklearn/") if each in mapped] == []
