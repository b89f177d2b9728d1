"""The server's parts, made as the options say."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from service.modelserver.batching import BatchingRunner
from service.modelserver.batching_options import (
    BatchingOptions,
    batch_threads,
    batching_options,
    batching_options_of,
)
from service.modelserver.calls import Calls, add_service
from service.modelserver.errors import PermissionDenied, ServingError, StartError
from service.modelserver.files import read_text_proto
from service.modelserver.metrics import DEFAULT_PATH, Metrics, MetricsServer
from service.modelserver.model_service import ModelService
from service.modelserver.options import Options
from service.modelserver.prediction_service import PREDICTION_PARSERS, PredictionService
from service.modelserver.repository import Repository, RepositoryOptions
from service.modelserver.runner import DirectRunner, Runner
from service.modelserver.servable import Servable, load_servable
from service.modelserver.tags import AUTO, tags_to_load
from service.modelserver.version import Version
from service.modelserver.warmup import warm_up
from sluice.wire.contract import HEALTH_SERVICE, MODEL_SERVICE, PREDICTION_SERVICE
from sluice.wire.health import HealthService, add_health
from sluice.wire.protos.serving_pb2 import (
    BatchingParameters,
    ModelConfig,
    ModelServerConfig,
    MonitoringConfig,
    SSLConfig,
)
from sluice.wire.reflection import add_reflection
from sluice.wire.signed_files import NotAsSigned
from sluice.wire.signing import BadKey, TrustedKeys

SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE, HEALTH_SERVICE)

log = logging.getLogger(__name__)


class Batching(NamedTuple):
    """How --enable_batching joins calls."""

    threads: int  # of all models
    options: BatchingOptions  # of every model that has none of its own


def make_repository(
    options: Options, metrics: Metrics, batching: Batching | None = None
) -> Repository:
    """Configured, not started. Raises StartError for options that cannot be followed."""
    load = partial(
        _load,
        options=options,
        metrics=metrics,
        session_config=session_config(options),
        batching=batching,
        trusted=_trusted_keys(options),
    )
    directory = Path(options.model_repository).absolute() if options.model_repository else None
    repository = Repository(
        load,
        RepositoryOptions(
            poll_s=options.file_system_poll_wait_seconds,
            load_threads=options.num_load_threads or 2,
            max_load_retries=options.max_num_load_retries,
            load_retry_interval_s=options.load_retry_interval_micros / 1e6,
            unavailable_labels=options.allow_version_labels_for_unavailable_models,
            any_unavailable_labels=options.force_allow_any_version_labels_for_unavailable_models,
        ),
        directory,
    )
    if directory is None:
        try:
            repository.configure(read_configs(options))
        except ServingError as error:
            raise StartError(str(error)) from error
    return repository


def read_configs(options: Options) -> list[ModelConfig]:
    """The models that the flags or the config file name now. Raises StartError."""
    if not options.model_config_file:
        return [
            ModelConfig(
                name=options.model_name, base_path=str(Path(options.model_base_path).absolute())
            )
        ]
    config = read_text_proto(options.model_config_file, ModelServerConfig())
    if config.WhichOneof("config") == "custom_model_config":
        raise StartError("ModelServer does not yet support custom model config.")
    return list(config.model_config_list.config)


def read_batching(options: Options) -> Batching | None:
    """None unless --enable_batching; raises StartError for parameters that cannot be followed."""
    if not options.enable_batching:
        return None
    parameters = BatchingParameters()
    if options.batching_parameters_file:
        read_text_proto(options.batching_parameters_file, parameters)
    try:
        return Batching(batch_threads(parameters), batching_options(parameters))
    except ServingError as error:
        raise StartError(str(error)) from error


def make_runner(options: Options, metrics: Metrics, batching: Batching | None) -> Runner:
    """Joins calls where `batching` says how."""
    direct = DirectRunner(options.grpc_max_threads)
    if batching is None:
        return direct
    return BatchingRunner(batching.threads, direct, metrics.batched)


def make_server(
    options: Options, repository: Repository, runner: Runner, calls: Calls, health: HealthService
) -> grpc.aio.Server:
    """With every service; it does not listen yet."""
    server = grpc.aio.server(
        options=[
            # gRPC's 4 MB is less than a batch of pictures; TensorFlow Serving lifts it as well.
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a second server on it
            *options.channel_arguments(),
        ]
    )
    predictions = PredictionService(
        repository, runner, content=options.enable_serialization_as_tensor_content
    )
    add_service(server, PREDICTION_SERVICE, predictions, calls, PREDICTION_PARSERS)
    add_service(server, MODEL_SERVICE, ModelService(repository, options.allow_reload_config), calls)
    add_health(server, health)
    add_reflection(server, SERVICES)
    return server


def listen(server: grpc.aio.Server, options: Options) -> int:
    """Bind the port, which is returned, and the socket. Raises StartError."""
    addresses = [options.address(options.port)]
    if options.grpc_socket_path:
        addresses.append(f"unix:{Path(options.grpc_socket_path).absolute()}")
    credentials = _credentials(options)
    try:
        ports = [
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
            for address in addresses
        ]
    except RuntimeError as error:
        raise StartError(
            f"{' and '.join(addresses)} cannot be listened on; is another server running there? "
            f"({error})"
        ) from error
    return ports[0]


def make_metrics_server(options: Options, metrics: Metrics) -> MetricsServer | None:
    """None unless --monitoring_config_file asks for one. Raises StartError."""
    if not options.monitoring_config_file:
        return None
    config = read_text_proto(options.monitoring_config_file, MonitoringConfig()).prometheus_config
    if not config.enable:
        return None
    if not options.rest_api_port:
        raise StartError("metrics are answered on a port of their own: set --rest_api_port")
    try:
        server = MetricsServer(
            (options.bind_address, options.rest_api_port),
            config.path or DEFAULT_PATH,
            metrics.render,
        )
    except OSError as error:
        raise StartError(
            f"port {options.rest_api_port} cannot be listened on; choose another --rest_api_port "
            f"({error})"
        ) from error
    log.info("Exporting metrics at %s%s", options.address(server.port), config.path or DEFAULT_PATH)
    return server


def _load(
    version: Version,
    options: Options,
    metrics: Metrics,
    session_config: ConfigProto,
    batching: Batching | None,
    trusted: TrustedKeys | None,
) -> Servable:
    with metrics.loading(version.model, version.path), _as_signed(version, trusted) as unchanged:
        batched = batching and batching.options
        if batching and options.enable_per_model_batching_parameters:
            batched = batching_options_of(version.path)
        tags = tags_to_load(version.path, options.saved_model_tags)
        if options.saved_model_tags == AUTO:
            log.info("Loading the graph %s of %s", ",".join(tags), version)
        servable = load_servable(
            version.path,
            tags,
            session_config,
            batched,
            options.check_input_shapes,
        )
        try:
            if options.enable_model_warmup:
                warm_up(servable, version.path, max(options.num_request_iterations_for_warmup, 1))
            unchanged()
        except BaseException:  # whatever it was, nobody else could free the session
            servable.close()
            raise
        return servable


@contextmanager
def _as_signed(version: Version, trusted: TrustedKeys | None) -> Iterator[Callable[[], None]]:
    """Enter only with what a trusted key has signed; what is given asks whether it is so still."""
    if trusted is None:
        yield lambda: None
        return
    try:
        checked = trusted.check_to_load(version.path, version.model, version.number)
        log.info("%s was signed by the key %s", version, checked.key_id)
        yield checked.check_unchanged
    except (NotAsSigned, BadKey) as error:
        raise PermissionDenied(str(error)) from None


def _trusted_keys(options: Options) -> TrustedKeys | None:
    if not options.trusted_keys:
        return None
    try:
        return TrustedKeys(Path(options.trusted_keys))
    except BadKey as error:
        raise StartError(f"--trusted_keys: {error}") from None


def session_config(options: Options) -> ConfigProto:
    config = ConfigProto()
    if options.tensorflow_session_config_file:
        read_text_proto(options.tensorflow_session_config_file, config)
    both = options.tensorflow_session_parallelism
    # A flag that is not given leaves what the file says.
    if intra := options.tensorflow_intra_op_parallelism or both:
        config.intra_op_parallelism_threads = intra
    if inter := options.tensorflow_inter_op_parallelism or both:
        config.inter_op_parallelism_threads = inter
    if options.per_process_gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = options.per_process_gpu_memory_fraction
    elif not config.HasField("gpu_options"):
        # TensorFlow's default is all of every GPU's memory, which another process may need.
        config.gpu_options.allow_growth = True
    if options.mixed_precision:
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    return config


def _credentials(options: Options) -> grpc.ServerCredentials | None:
    if not options.ssl_config_file:
        return None
    config = read_text_proto(options.ssl_config_file, SSLConfig())
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        config.custom_ca.encode() or None,
        config.client_verify,
    )
