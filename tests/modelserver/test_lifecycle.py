"""The twin as a process: ready when it says so, drained on SIGTERM, not started wrong."""
import signal
import socket
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def single(launch_modelserver, conformance_models):
    """A twin of its own for one model."""
    server = launch_modelserver("--model_name=affine",
                                f"--model_base_path={conformance_models}/affine")
    yield server
    server.terminate()


def test_sigterm_finishes_what_was_accepted_and_exits_0(single):
    answered, refused = [], []
    accepted = threading.Semaphore(0)
    with grpc.insecure_channel(single.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        assert next(watch).status == SERVING
        stop = threading.Event()
        callers = [threading.Thread(target=call_until, args=(channel, stop, answered, refused,
                                                             accepted)) for _ in range(8)]
        for caller in callers:
            caller.start()
        for _ in range(50):
            accepted.acquire()
        single.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert single.wait() == 0
        stop.set()
        for caller in callers:
            caller.join()
    assert "Stopped" in single.log
    # A call that came after the end of accepting is refused, none is cut off while it runs.
    assert {error.code() for error in refused} <= {grpc.StatusCode.UNAVAILABLE}
    assert len(answered) >= 50


def call_until(channel, stop, answered, refused, accepted):
    method = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
    request = b"\x0a\x08\x0a\x06affine"  # GetModelStatusRequest(model_spec={name: "affine"})
    while not stop.is_set():
        try:
            answered.append(method(request, timeout=30))
            accepted.release()
        except grpc.RpcError as error:
            refused.append(error)
            return


@pytest.mark.parametrize("service", ["", "tensorflow.serving.PredictionService",
                                     "tensorflow.serving.ModelService"])
def test_health_is_told_overall_and_by_service(modelserver, service):
    with grpc.insecure_channel(modelserver.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    assert reply.status == SERVING


def test_a_taken_port_is_an_error_that_names_it(launch_modelserver, conformance_models):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        server = launch_modelserver(f"--port={port}",
                                    f"--model_base_path={conformance_models}/pair", ready=False)
        assert server.wait() == 1
    assert f"port {port} cannot be listened on" in server.log


def test_a_config_that_cannot_be_read_is_an_error_that_names_it(launch_modelserver, tmp_path):
    config = tmp_path / "models.config"
    config.write_text("model_config_list { config { nam")
    server = launch_modelserver(f"--model_config_file={config}", ready=False)
    assert server.wait() == 1
    assert f"Invalid protobuf file: '{config}': 1:" in server.log


def test_a_label_on_a_version_that_is_not_loaded_needs_the_flag(launch_modelserver,
                                                                conformance_models):
    server = launch_modelserver(f"--model_config_file={conformance_models}/models.config",
                                ready=False)
    assert server.wait() == 1
    assert "Request to assign label to version" in server.log
