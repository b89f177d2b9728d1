"""One running twin with most of its flags: TLS, batching, metrics, a changing config."""

import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import ml_dtypes
import numpy as np
import pytest
import trustme
from google.protobuf import text_format

from sluice import Client, ClientError
from sluice.wire.protos import reflection_pb2_grpc, serving_pb2_grpc
from sluice.wire.protos.reflection_pb2 import ServerReflectionRequest
from sluice.wire.protos.serving_pb2 import (
    GetModelStatusRequest,
    ModelConfig,
    ModelServerConfig,
    ModelSpec,
    PredictRequest,
    ReloadConfigRequest,
    SSLConfig,
)
from sluice.wire.protos.tensorflow_pb2 import TensorProto
from sluice.wire.tensors import decode_tensor, encode_tensor
from tests.processes import free_port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """ca, server and client: .crt each, and .key of the latter two, which the first has signed."""
    directory, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.crt")
    for name in ("server", "client"):
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(directory / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(directory / f"{name}.crt")
    return directory


class Config:
    """The models.config of the running twin, and the models there are to put into it."""

    def __init__(self, file, conformance_models, own_models):
        self._file, self.conformance, self._own = file, conformance_models, own_models

    def entry(self, name, **fields) -> ModelConfig:
        base = self._own / name if (self._own / name).exists() else self.conformance / name
        return ModelConfig(name=name, base_path=str(base), model_platform="tensorflow", **fields)

    def proto(self, **more) -> ModelServerConfig:
        config = ModelServerConfig()
        fields = {"slow": {}, "uneven": {}, "wide": {}, "dtypes": {}, "pair": {}, **more}
        config.model_config_list.config.extend(self.entry(name, **fields[name]) for name in fields)
        return config

    def write(self, **more) -> None:
        beside = self._file.with_suffix(".new")
        beside.write_text(text_format.MessageToString(self.proto(**more)))
        beside.rename(self._file)


@pytest.fixture(scope="module")
def config(tmp_path_factory, conformance_models, own_models):
    config = Config(
        tmp_path_factory.mktemp("config") / "models.config", conformance_models, own_models
    )
    config.write()
    return config


@pytest.fixture(scope="module")
def metrics_port():
    return free_port()


@pytest.fixture(scope="module")
def scrape(metrics_port):
    def get(path="/monitoring/prometheus/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}{path}", timeout=10) as reply:
            return reply.read().decode()

    return get


@pytest.fixture(scope="module")
def server(launch_modelserver, tmp_path_factory, certificates, config, metrics_port):
    directory = tmp_path_factory.mktemp("server")
    (directory / "batching").write_text(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 1000 } "
        "num_batch_threads { value: 1 } max_enqueued_batches { value: 1 }"
    )
    (directory / "monitoring").write_text("prometheus_config { enable: true }")
    (directory / "ssl").write_text(
        text_format.MessageToString(
            SSLConfig(
                server_key=(certificates / "server.key").read_text(),
                server_cert=(certificates / "server.crt").read_text(),
                custom_ca=(certificates / "ca.crt").read_text(),
                client_verify=True,
            )
        )
    )
    server = launch_modelserver(
        "--model_config_file",
        str(config._file),
        "--model_config_file_poll_wait_seconds=0.2",
        "--enable_batching",
        f"--batching_parameters_file={directory}/batching",
        "--enable_serialization_as_tensor_content=true",
        f"--ssl_config_file={directory}/ssl",
        f"--rest_api_port={metrics_port}",
        f"--monitoring_config_file={directory}/monitoring",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=600000",
        "--num_tflite_pools=2",
        "--tensorflow_intra_op_parallelism=1",
        "--tensorflow_inter_op_parallelism=2",
        f"--grpc_socket_path={directory}/socket",
    )
    server.socket = f"unix:{directory}/socket"
    yield server
    assert server.terminate() == 0, server.log


def test_the_gateway_shows_its_certificate_and_asks_for_the_servers(
    server, certificates, launch_gateway, tmp_path
):
    files = {"ca": "ca.crt", "certificate": "client.crt", "key": "client.key"}
    for name in files.values():
        shutil.copy(certificates / name, tmp_path / name)
    settings = {f"tls_model_server_{each}_file": tmp_path / files[each] for each in files}
    settings["tls_model_server"] = "on"
    gateway = launch_gateway(server.address.replace("127.0.0.1", "localhost"), **settings)
    with Client(gateway.url) as client:
        assert client.metadata("pair").signatures
        with (tmp_path / "client.crt").open("a") as certificate:
            certificate.write("\n")
        gateway.wait_for("client.crt.* is in force")
        assert client.metadata("pair").signatures
    for spoiled in (settings | {"tls_model_server_name": "example.org"}, {}):
        refused = launch_gateway(server.address, **spoiled)
        with Client(refused.url, retries=0) as client, pytest.raises(ClientError):
            client.metadata("pair")


@pytest.fixture(scope="module")
def credentials(certificates):
    return grpc.ssl_channel_credentials(
        *((certificates / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt"))
    )


@pytest.fixture(scope="module")
def channel(server, credentials):
    with grpc.secure_channel(server.address, credentials) as channel:
        yield channel


@pytest.fixture(scope="module")
def predictions(channel):
    return serving_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return serving_pb2_grpc.ModelServiceStub(channel)


def request(model, x=(1.0,), **more):
    request = PredictRequest(model_spec=ModelSpec(name=model))
    for name, value in {"x": np.array(x, "f4"), **more}.items():
        request.inputs[name].CopyFrom(encode_tensor(np.asarray(value)))
    return request


def slow(steps):
    return request("slow", steps=np.array([steps], "i4"))


def y_of(reply):
    return decode_tensor(reply.outputs["y"]).tolist()


# ---- TLS, sockets ----


def test_a_client_without_a_certificate_is_refused(server, certificates):
    credentials = grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        stub = serving_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request("wide", [[1.0]]), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_unix_socket_answers_too(server, credentials):
    options = [("grpc.default_authority", "localhost")]
    with grpc.secure_channel(server.socket, credentials, options) as channel:
        stub = serving_pb2_grpc.PredictionServiceStub(channel)
        assert y_of(stub.Predict(request("wide", [[1.0]]), timeout=30)) == [[1.0]]


def test_a_flag_without_meaning_is_named_in_the_log(server):
    assert "--num_tflite_pools has no meaning here: there is no TensorFlow Lite" in server.log


# ---- tensors ----


DTYPES = [
    "float16",
    ml_dtypes.bfloat16,
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
]


def test_every_dtype_goes_in_and_comes_out(predictions):
    request = PredictRequest(model_spec=ModelSpec(name="dtypes"))
    sent = {np.dtype(dtype).name: np.array([[0, 1]]).astype(dtype) for dtype in DTYPES}
    sent |= {name: array * (1 + 2j) for name, array in sent.items() if array.dtype.kind == "c"}
    sent["string"] = np.array([[b"", b"\xff\0"]], object)
    for content in (False, True):
        for name, array in sent.items():
            request.inputs[name].CopyFrom(encode_tensor(array, content))
        reply = predictions.Predict(request, timeout=60)
        received = {name: decode_tensor(tensor) for name, tensor in reply.outputs.items()}
        assert received.keys() == sent.keys()
        for name, array in sent.items():
            assert received[name].dtype == array.dtype
            assert received[name].tolist() == array.tolist()


def test_a_shape_that_few_bytes_make_huge_is_refused(predictions):
    request = PredictRequest(model_spec=ModelSpec(name="wide"))
    request.inputs["x"].CopyFrom(TensorProto(dtype=1, float_val=[1]))
    for size in (10**6, 10**9):
        request.inputs["x"].tensor_shape.dim.add(size=size)
    with pytest.raises(grpc.RpcError, match=r'input "x".*more than') as caught:
        predictions.Predict(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# ---- batching ----


def test_outputs_travel_as_tensor_content_when_asked_for(predictions):
    reply = predictions.Predict(request("wide", [[1.0, 2.0]]), timeout=30)
    assert reply.outputs["y"].tensor_content == np.array([1, 2], "<f4").tobytes()


def test_calls_at_the_same_time_get_their_own_rows(predictions):
    calls = [
        predictions.Predict.future(request("wide", [[float(value)]]), timeout=30)
        for value in range(4)
    ]
    assert [y_of(call.result()) for call in calls] == [[[float(value)]] for value in range(4)]


@pytest.mark.parametrize(
    ("sent", "code", "details"),
    [
        (
            request("wide", np.ones((5, 1))),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Task size 5 is larger than maximum input batch size 4",
        ),
        (
            request("uneven", [1, 2]),
            grpc.StatusCode.FAILED_PRECONDITION,
            "0th dimension (1) does not equal the sum",
        ),
    ],
)
def test_what_cannot_be_batched_is_told(predictions, sent, code, details):
    with pytest.raises(grpc.RpcError) as caught:
        predictions.Predict(sent, timeout=30)
    assert caught.value.code() == code
    assert details in caught.value.details()


def test_no_rows_are_answered(predictions):
    assert y_of(predictions.Predict(request("wide", np.ones((0, 1))), timeout=30)) == []


def test_a_full_queue_is_unavailable_and_empties_again(predictions):
    calls = [predictions.Predict.future(slow(40), timeout=60) for _ in range(16)]
    codes = {call.code() for call in calls}
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert y_of(predictions.Predict(slow(1), timeout=30)) == [1.0]


def test_a_deadline_passes_in_the_queue_without_a_run(predictions, scrape, until):
    cancelled = ':tensorflow:serving:request_count{model_name="wide",status="CANCELLED"}'
    assert cancelled not in scrape()
    busy = predictions.Predict.future(slow(20_000), timeout=60)
    with pytest.raises(grpc.RpcError) as caught:
        predictions.Predict(request("wide", [[1.0]]), timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: f"{cancelled} 1\n" in scrape())
    assert not busy.done()
    assert y_of(busy.result()) == [1.0]


def test_a_loop_ends_with_its_callers_time_and_gives_its_thread_back(predictions):
    with pytest.raises(grpc.RpcError) as caught:
        predictions.Predict(slow(2**30), timeout=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # There is one thread for batches.
    assert y_of(predictions.Predict(request("wide", [[1.0]]), timeout=30)) == [[1.0]]


# ---- configuration ----


def states(models, name):
    reply = models.GetModelStatus(
        GetModelStatusRequest(model_spec=ModelSpec(name=name)), timeout=30
    )
    return {
        status.version: status.State.Name(status.state) for status in reply.model_version_status
    }


def known(models, name):
    try:
        return states(models, name)
    except grpc.RpcError:
        return {}


def test_the_config_file_is_followed(models, predictions, config, until):
    config.write(affine={"model_version_policy": {"all": {}}})
    until(lambda: known(models, "affine") == dict.fromkeys((1, 2, 3), "AVAILABLE"))
    config.write(affine={"model_version_policy": {"latest": {"num_versions": 2}}})
    until(lambda: states(models, "affine")[1] == "END")
    config.write()
    until(lambda: set(states(models, "affine").values()) == {"END"})
    with pytest.raises(grpc.RpcError) as caught:
        predictions.Predict(request("affine"), timeout=30)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_config_file_that_cannot_be_read_changes_nothing(models, server, config):
    whole = config._file.read_text()
    config._file.write_text("model_config_list {")
    server.wait_for(r"Reloading .* failed; the models stay as they were: Invalid protobuf file")
    assert states(models, "pair") == {1: "AVAILABLE"}
    config._file.write_text("models {")
    server.wait_for(r"failed; .* no field named .models.")
    assert server.log.count("failed; the models stay") == 2  # once each, however often it is read
    config._file.write_text(whole)


def test_a_reload_request_brings_a_model_and_its_label(models, predictions, config, until):
    specific = {"model_version_policy": {"specific": {"versions": [1, 3]}}}
    config.write(affine=specific)  # or the poll would undo it, as it does with the label
    reply = models.HandleReloadConfigRequest(
        ReloadConfigRequest(config=config.proto(affine=specific)), timeout=60
    )
    assert reply.status.error_code == 0
    labelled = config.proto(affine={**specific, "version_labels": {"first": 1}})
    sent = request("affine")
    sent.model_spec.version_label = "first"
    answers = []

    def brought():
        models.HandleReloadConfigRequest(ReloadConfigRequest(config=labelled), timeout=60)
        try:
            answers.append(y_of(predictions.Predict(sent, timeout=30)))
        except grpc.RpcError as error:
            assert error.details() == "Unrecognized servable version label: first"
        return answers

    until(brought)
    assert answers == [[2.5]]
    assert y_of(predictions.Predict(request("affine"), timeout=30)) == [2.0]


@pytest.mark.parametrize(
    ("change", "code", "details"),
    [
        (
            lambda c: c.entry("affine", version_labels={"next": 9}),
            grpc.StatusCode.FAILED_PRECONDITION,
            "label to version 9 of model affine, which is not currently available",
        ),
        (lambda c: c.entry("pair"), grpc.StatusCode.INVALID_ARGUMENT, "pair multiple times"),
        (
            lambda _: ModelConfig(name="relative", base_path="models"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "absolute path",
        ),
        (
            lambda _: ModelConfig(name="other", base_path="/x", model_platform="torch"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "unsupported platform torch",
        ),
        (
            lambda _: ModelConfig(name="absent", base_path="/absent"),
            grpc.StatusCode.UNKNOWN,
            "1 servable(s) did not become available: {{name: absent version: -1}}",
        ),
    ],
)
def test_a_reload_request_that_cannot_be_followed_is_told(models, config, change, code, details):
    asked = config.proto()
    asked.model_config_list.config.append(change(config))
    with pytest.raises(grpc.RpcError) as caught:
        models.HandleReloadConfigRequest(ReloadConfigRequest(config=asked), timeout=60)
    assert caught.value.code() == code
    assert details in caught.value.details()
    assert states(models, "pair") == {1: "AVAILABLE"}


def test_a_reload_request_without_models_is_refused(models):
    with pytest.raises(grpc.RpcError) as caught:
        models.HandleReloadConfigRequest(ReloadConfigRequest(), timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# ---- metrics, reflection ----


def test_calls_are_counted_under_tensorflow_servings_names(predictions, scrape):
    ok = ':tensorflow:serving:request_count{model_name="pair",status="INVALID_ARGUMENT"} '
    before = int(re.search(re.escape(ok) + r"(\d+)", scrape() + f"\n{ok}0")[1])
    with pytest.raises(grpc.RpcError):
        predictions.Predict(request("pair"), timeout=30)
    predictions.Predict(request("wide", [[1.0]]), timeout=30)
    text = scrape()
    assert f"{ok}{before + 1}\n" in text
    latency = r':request_latency_count\{model_name="wide",API="Predict",entrypoint="GRPC"\} \d+\n'
    assert re.search(latency, text)


def test_loads_are_counted_under_tensorflows_names(server, scrape, own_models):
    assert server.process.poll() is None
    path = own_models / "wide" / "1"
    text = scrape()
    count = ":tensorflow:cc:saved_model:load_attempt_count"
    assert f'{count}{{model_path="{path}",status="success"}} 1\n' in text
    assert f':tensorflow:cc:saved_model:load_latency{{model_path="{path}"}} ' in text


def test_batches_are_counted_with_how_long_their_calls_waited(predictions, scrape):
    predictions.Predict(request("wide", [[1.0]]), timeout=30)
    text = scrape()

    def figure(name):
        line = re.escape(f":tensorflow:serving:batching_session:{name} ")
        return int(re.search(line + r"(\d+)\n", text)[1])

    runs = figure("wrapped_run_count{}")
    calls = figure('queuing_latency_count{thread_pool_name=""}')
    assert 0 < runs <= calls


def test_a_made_up_model_gets_no_label_of_its_own(predictions, scrape):
    with pytest.raises(grpc.RpcError):
        predictions.Predict(request("made up"), timeout=30)
    assert "made up" not in scrape()


def test_the_metrics_port_says_that_it_is_no_rest_api(server, scrape):
    assert server.process.poll() is None
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        scrape("/v1/models/pair")
    assert b"the gateway has the REST API" in caught.value.read()
    caught.value.close()


def reflect(channel, **question):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return next(stub.ServerReflectionInfo(iter([ServerReflectionRequest(**question)]), timeout=30))


def test_reflection_lists_the_services(channel):
    names = {
        service.name
        for service in reflect(channel, list_services="").list_services_response.service
    }
    assert {"tensorflow.serving.PredictionService", "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize(
    "symbol",
    ["tensorflow.serving.PredictionService", "tensorflow.TensorProto", "grpc.health.v1.Health"],
)
def test_reflection_describes_a_symbol(channel, symbol):
    reply = reflect(channel, file_containing_symbol=symbol)
    assert reply.file_descriptor_response.file_descriptor_proto


def test_reflection_does_not_know_what_there_is_not(channel):
    reply = reflect(channel, file_containing_symbol="no.such.Service")
    assert reply.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
