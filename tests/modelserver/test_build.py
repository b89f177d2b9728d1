"""What keeps a server from beginning: files that cannot be followed, ports that are taken."""

import asyncio
import socket
import urllib.request

import grpc
import pytest

from service.modelserver import metrics
from service.modelserver.batching import BatchingRunner
from service.modelserver.build import (
    listen,
    make_metrics_server,
    make_repository,
    make_runner,
    read_batching,
    session_config,
)
from service.modelserver.errors import StartError
from service.modelserver.metrics import Metrics, MetricsServer
from service.modelserver.options import Options
from tests.processes import free_port

LABELLED = """model_config_list { config {
    name: "m" base_path: "/m" version_labels { key: "stable" value: 1 } } }"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"

    def write(text):
        path.write_text(text)
        return str(path)

    return write


def test_a_label_on_a_version_that_is_not_loaded_needs_the_flag(file):
    options = {"model_config_file": file(LABELLED)}
    with pytest.raises(StartError, match="label to version 1 of model m, which is not currently"):
        make_repository(Options(**options), Metrics())
    make_repository(Options(**options, allow_version_labels_for_unavailable_models=True), Metrics())


def test_a_config_of_another_kind_is_refused(file):
    config = file('custom_model_config { type_url: "x" }')
    with pytest.raises(StartError, match="custom model config"):
        make_repository(Options(model_config_file=config), Metrics())


def test_a_config_file_that_is_not_there_is_named():
    with pytest.raises(StartError, match=r"'/no/such/file': .*No such file"):
        make_repository(Options(model_config_file="/no/such/file"), Metrics())


def test_batching_parameters_that_cannot_be_followed_are_refused(file):
    options = Options(
        enable_batching=True,
        batching_parameters_file=file("max_batch_size { value: 8 } allowed_batch_sizes: 4"),
    )
    with pytest.raises(StartError, match="must match max_batch_size"):
        read_batching(options)


def test_batching_has_defaults():
    options = Options(enable_batching=True)
    assert isinstance(make_runner(options, Metrics(), read_batching(options)), BatchingRunner)


def test_a_taken_port_is_named():
    async def try_to_listen(port):
        listen(grpc.aio.server(options=[("grpc.so_reuseport", 0)]), Options(port=port))

    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"0.0.0.0:{port} cannot be listened on"):
            asyncio.run(try_to_listen(port))


def test_metrics_need_a_port_that_is_free(file):
    monitoring = file("prometheus_config { enable: true }")
    metrics = Metrics()
    with pytest.raises(StartError, match="--rest_api_port"):
        make_metrics_server(Options(monitoring_config_file=monitoring), metrics)
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} cannot be listened on"):
            make_metrics_server(
                Options(monitoring_config_file=monitoring, rest_api_port=port), metrics
            )


def test_it_listens_on_an_ipv6_address_for_calls_and_metrics(file, caplog):
    async def listen_on(options):
        return listen(grpc.aio.server(options=[("grpc.so_reuseport", 0)]), options)

    port = free_port()
    options = Options(
        port=0,
        bind_address="::1",
        rest_api_port=port,
        monitoring_config_file=file("prometheus_config { enable: true }"),
    )
    assert asyncio.run(listen_on(options))
    with caplog.at_level("INFO"):
        make_metrics_server(options, Metrics())
    assert f"Exporting metrics at [::1]:{port}/monitoring" in caplog.text
    with urllib.request.urlopen(f"http://[::1]:{port}/monitoring/prometheus/metrics") as reply:
        assert b"tensorflow:serving:request_count" in reply.read()


def test_metrics_ask_no_dns(monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("the DNS is asked"))
    assert MetricsServer(("127.0.0.1", 0), "/metrics", Metrics().render).port


def test_who_connects_for_metrics_and_asks_nothing_keeps_no_thread(monkeypatch):
    monkeypatch.setattr(metrics, "CLIENT_S", 0.05)
    server = MetricsServer(("127.0.0.1", 0), "/metrics", Metrics().render)
    with socket.create_connection(("127.0.0.1", server.port), 60) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize("text", ["", "prometheus_config { enable: false }"])
def test_metrics_are_off_unless_asked_for(file, text):
    options = Options(monitoring_config_file=file(text), rest_api_port=1)
    assert make_metrics_server(options, Metrics()) is None


SESSION = """intra_op_parallelism_threads: 3  inter_op_parallelism_threads: 4
    gpu_options { per_process_gpu_memory_fraction: 0.5 }"""


@pytest.mark.parametrize(
    ("flags", "intra", "inter"),
    [
        ({}, 3, 4),
        ({"tensorflow_session_parallelism": 1}, 1, 1),
        ({"tensorflow_intra_op_parallelism": 2}, 2, 4),
    ],
    ids=str,
)
def test_a_session_file_counts_where_no_flag_says_otherwise(file, flags, intra, inter):
    config = session_config(Options(tensorflow_session_config_file=file(SESSION), **flags))
    assert config.intra_op_parallelism_threads == intra
    assert config.inter_op_parallelism_threads == inter
    assert config.gpu_options.per_process_gpu_memory_fraction == 0.5
    assert not config.gpu_options.allow_growth


def test_without_a_session_file_all_cores_are_used_and_gpus_shared():
    config = session_config(Options())
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (0, 0)
    assert config.gpu_options.allow_growth
