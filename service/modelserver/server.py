"""The server's life: listen, load, say ready, serve, drain, stop."""
import asyncio
import gc
import logging
import signal
from functools import partial
from pathlib import Path

import grpc
from google.protobuf import text_format
from grpc_health.v1 import health_pb2_grpc
from tensorflow.compat.v1 import ConfigProto

from service.modelserver.errors import ServingError
from service.modelserver.health import Health
from service.modelserver.model_service import ModelService
from service.modelserver.options import Options
from service.modelserver.prediction_service import PredictionService
from service.modelserver.repository import Repository, RepositoryOptions
from service.modelserver.rpc import Calls
from service.modelserver.runner import DirectRunner, Runner
from service.modelserver.servable import Servable, load_servable
from service.modelserver.version import Version
from service.modelserver.warmup import warm_up
from service.protos import serving_pb2_grpc
from service.protos.serving_pb2 import ModelConfig, ModelServerConfig

log = logging.getLogger("service.modelserver")

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class StartError(Exception):
    """The server cannot begin: a port that is taken, a config that cannot be read or followed."""


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError."""
    stop = _stop_event()
    repository = _repository(options)
    runner = DirectRunner(options.grpc_max_threads)
    calls, health = Calls(), Health(SERVICES)
    server = _server(options, repository, runner, calls, health)
    port = _listen(server, options)
    await server.start()
    gc.freeze()  # what TensorFlow's import left behind; models stay collectable
    repository.start()
    await _until_loaded_or(stop, repository)
    if not stop.is_set():
        await health.set(serving=True)
        log.info("Running gRPC ModelServer at 0.0.0.0:%d ...", port)
    following = asyncio.create_task(_follow_config(options, repository))
    await stop.wait()
    following.cancel()
    log.info("Draining: no new calls, %g s for those in progress", options.drain_seconds)
    await health.end()
    await calls.drain(options.drain_seconds)
    await server.stop(grace=1)
    await runner.close()
    await asyncio.to_thread(repository.stop)
    log.info("Stopped")


def _stop_event() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _repository(options: Options) -> Repository:
    load = partial(_load, options=options, session_config=_session_config())
    directory = Path(options.model_repository).absolute() if options.model_repository else None
    repository = Repository(load, RepositoryOptions(
        poll_s=options.file_system_poll_wait_seconds,
        load_threads=options.num_load_threads or 2,
        max_load_retries=options.max_num_load_retries,
        load_retry_interval_s=options.load_retry_interval_micros / 1e6,
        unavailable_labels=options.allow_version_labels_for_unavailable_models,
        any_unavailable_labels=options.force_allow_any_version_labels_for_unavailable_models,
    ), directory, unloaded=_collect)
    if directory is None:
        try:
            repository.configure(_configs(options))
        except ServingError as error:
            raise StartError(str(error)) from error
    return repository


def _collect() -> None:
    gc.collect()  # a TensorFlow graph is full of cycles


def _load(version: Version, options: Options, session_config: ConfigProto) -> Servable:
    servable = load_servable(version.path, options.saved_model_tags.split(","), session_config)
    if options.enable_model_warmup:
        try:
            warm_up(servable, version.path, max(options.num_request_iterations_for_warmup, 1))
        except BaseException:
            servable.close()
            raise
    return servable


def _session_config() -> ConfigProto:
    config = ConfigProto()
    config.gpu_options.allow_growth = True
    return config


def _configs(options: Options) -> list[ModelConfig]:
    if not options.model_config_file:
        return [ModelConfig(name=options.model_name,
                            base_path=str(Path(options.model_base_path).absolute()))]
    return list(read_config(Path(options.model_config_file)).model_config_list.config)


async def _follow_config(options: Options, repository: Repository) -> None:
    """Serve what the config file says as it changes; one that cannot be followed is passed over."""
    wait_s, known = options.model_config_file_poll_wait_seconds, _configs(options)
    while options.model_config_file and wait_s > 0:
        await asyncio.sleep(wait_s)
        try:
            configs = _configs(options)
            if configs != known:
                repository.configure(configs)
                known = configs
        except (StartError, ServingError) as error:
            log.error("The model config file cannot be followed: %s", error)


def read_config(path: Path) -> ModelServerConfig:
    """A ModelServerConfig in text form. Raises StartError."""
    try:
        return text_format.Parse(path.read_text(), ModelServerConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise StartError(f"Invalid protobuf file: '{path}': {error}") from error


def _server(options: Options, repository: Repository, runner: Runner, calls: Calls,
            health: Health) -> grpc.aio.Server:
    server = grpc.aio.server(options=[
        ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0)])  # a taken port is an error, not a second server on it
    content = options.enable_serialization_as_tensor_content
    serving_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(repository, runner, calls, content), server)
    serving_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(repository, calls), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server


def _listen(server: grpc.aio.Server, options: Options) -> int:
    try:
        return server.add_insecure_port(f"0.0.0.0:{options.port}")
    except RuntimeError as error:
        raise StartError(f"port {options.port} cannot be listened on: {error}") from error


async def _until_loaded_or(stop: asyncio.Event, repository: Repository) -> None:
    """Until every version there is has been loaded or has failed, or the server is to stop."""
    loaded = asyncio.create_task(asyncio.to_thread(repository.wait_until_settled))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({loaded, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
