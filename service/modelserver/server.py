"""The server's life: listen, load, say ready, serve, drain, stop."""

import asyncio
import gc
import logging
import os
import signal
import time
from dataclasses import replace
from typing import NoReturn

import grpc

from service.modelserver.build import (
    SERVICES,
    listen,
    make_metrics_server,
    make_repository,
    make_runner,
    make_server,
    read_batching,
    read_configs,
)
from service.modelserver.calls import Calls
from service.modelserver.errors import ServingError, StartError
from service.modelserver.metrics import Metrics
from service.modelserver.options import Options
from service.modelserver.repository import Repository
from sluice.wire.health import HealthService
from sluice.wire.lasting_server import LastingServer

log = logging.getLogger(__name__)


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError."""
    stop = _stop_event()
    metrics = Metrics()
    batching = read_batching(options)
    repository = make_repository(options, metrics, batching)
    runner = make_runner(options, metrics, batching)
    calls, health = Calls(metrics.called), HealthService(SERVICES)
    port = options.port

    def listening() -> grpc.aio.Server:
        nonlocal port
        server = make_server(options, repository, runner, calls, health)
        port = listen(server, replace(options, port=port))
        return server

    # Before the models load: a taken port is known at once.
    server = LastingServer(listening, grace_s=options.drain_seconds, taken=StartError)
    make_metrics_server(options, metrics)  # which answers until the process ends
    await server.start()

    gc.freeze()  # what TensorFlow's import left behind; models stay collectable
    repository.start()
    await _until_loaded_or(stop, repository, options.loading_patience_seconds or None)
    rereading = asyncio.create_task(_reread(options, repository))
    if not stop.is_set():
        await health.set(serving=True)
        log.info("Running gRPC ModelServer at %s ...", options.address(port))
    await stop.wait()

    log.info(
        "Stopping: new calls are refused, those in progress have up to %g s", options.drain_seconds
    )
    rereading.cancel()
    deadline = time.monotonic() + options.drain_seconds
    await health.end()  # first, so that balancers send new calls elsewhere
    unfinished = await calls.drain(options.drain_seconds)
    if unfinished:
        _give_up(f"{unfinished} call(s) did not finish within --drain_seconds and are cut off")
    unloading = asyncio.create_task(asyncio.to_thread(repository.stop))
    if not (await asyncio.wait({unloading}, timeout=max(deadline - time.monotonic(), 1)))[0]:
        _give_up("a version is still being loaded, or runs for a caller who has left")
    log.info("Stopped")
    _leave()


def _give_up(reason: str) -> NoReturn:
    log.warning("Stopped without waiting any longer: %s", reason)
    _leave()


def _leave() -> NoReturn:
    """End at once, with status 0.

    Python would wait for the threads that TensorFlow is still busy in, and gRPC's own stop answers
    CANCELLED to calls that are on the wire: a socket that is closed is UNAVAILABLE.
    """
    logging.shutdown()
    os._exit(0)


def _stop_event() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until_loaded_or(
    stop: asyncio.Event, repository: Repository, patience_s: float | None
) -> None:
    """Until every version there is has been loaded or has failed, or the server is to stop; for
    `patience_s` at the most."""
    loaded = asyncio.create_task(asyncio.to_thread(repository.wait_until_settled, patience_s))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({loaded, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()  # `loaded` is a thread, which cannot be; repository.stop() ends its wait
    if loaded.done() and not loaded.result():
        log.warning("Versions are still loading after %g s; the others are served", patience_s)


async def _reread(options: Options, repository: Repository) -> None:
    """Follow --model_config_file as it changes; a bad one changes nothing, and is told once."""
    told = ""
    while options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
        await asyncio.sleep(options.model_config_file_poll_wait_seconds)
        try:
            repository.configure(read_configs(options))
            told = ""
        except (StartError, ServingError) as error:
            if str(error) != told:
                log.error(
                    "Reloading %s failed; the models stay as they were: %s",
                    options.model_config_file,
                    error,
                )
            told = str(error)
