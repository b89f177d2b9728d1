"""gunicorn's settings: workers made before channels, a bounded drain, metrics of all workers.

No preload: grpc's channels must be opened after the fork, in the worker that uses them.
"""

import atexit
import gc
import math
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from service.gateway.settings import Settings

settings = Settings.from_environment()

wsgi_app = "service.gateway.app:from_environment()"
bind = f"{settings.http_host}:{settings.http_port}"
worker_class = "service.gateway.worker.DrainingWorker"  # gthread: grpcio waits without the GIL
workers = settings.workers
threads = settings.threads
graceful_timeout = math.ceil(settings.drain_timeout_s)
timeout = 60  # of a worker that hangs; a request is bounded by its deadline
keepalive = 75  # longer than the idle time-out of common load balancers
backlog = 2048
loglevel = settings.log_level
errorlog = "-"
accesslog = None  # telemetry.py writes it
control_socket_disable = True  # it would need a writable home directory
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None

if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="sluice-metrics-")
    _owner = os.getpid()

    @atexit.register
    def _remove_metrics():
        if os.getpid() == _owner:
            shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def on_starting(server):
    """Workers share the gRPC port among themselves, and would with a stranger: so look first."""
    if settings.grpc_port:
        try:
            socket.create_server((settings.http_host, settings.grpc_port)).close()
        except OSError as error:
            sys.exit(
                f"SLUICE_GRPC_PORT: port {settings.grpc_port} cannot be used "
                f"({os.strerror(error.errno)})"
            )


def post_worker_init(worker):
    gc.collect()
    gc.freeze()  # what was loaded stays: a full collection then walks the requests' objects only


def child_exit(server, worker):
    from prometheus_client import multiprocess  # it looks for the directory when it is imported

    multiprocess.mark_process_dead(worker.pid)
