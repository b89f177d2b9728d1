"""gunicorn's settings: workers made before channels, a bounded drain, metrics of all workers.

No preload: grpc's channels must be opened after the fork, in the worker that uses them.
"""

import atexit
import errno
import math
import os
import shutil
import socket
import sys
import tempfile

from service.gateway.access.book import book_of
from service.gateway.access.guard import check_reach
from service.gateway.settings import Settings

settings = Settings.from_environment()
check_reach(settings)
book_of(settings.workers)  # which the workers have from here, as they are forked

wsgi_app = "service.gateway.app:from_environment()"  # the worker makes its own, beside its front
bind = settings.address(settings.http_port)
worker_class = "service.gateway.front.worker.FrontWorker"
workers = settings.workers
http_parser = "auto"  # gunicorn_h1c, where there is a wheel of it for this machine
asgi_disconnect_grace_period = 0  # a caller that hangs up is cancelled at once
limit_request_fields = 100
graceful_timeout = math.ceil(settings.drain_timeout_s)
timeout = 60  # of a worker that hangs; a request is bounded by its deadline
keepalive = 75  # longer than the idle time-out of common load balancers
backlog = 2048
loglevel = settings.log_level
errorlog = "-"
accesslog = None  # telemetry.py writes it
control_socket_disable = True  # it would need a writable home directory
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="sluice-metrics-")
    _owner = os.getpid()

    @atexit.register
    def _remove_metrics():
        if os.getpid() == _owner:
            shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def on_starting(server):
    """Workers share these ports among themselves, and would with a stranger: so look first."""
    host = settings.http_host
    # By systemd, whose sockets are instead of the HTTP port.
    activated = os.environ.get("LISTEN_PID") == str(os.getpid())
    taken = {} if activated else {settings.http_port: "SLUICE_HTTP_PORT"}
    for name in ("grpc_port", "admin_port"):
        port, variable = getattr(settings, name), f"SLUICE_{name.upper()}"
        if not port:
            continue
        if port in taken:
            sys.exit(f"{taken[port]} and {variable} are both {port}: give each a port of its own")
        taken[port] = variable
        try:
            _look_at(host, port)
        except socket.gaierror as error:
            sys.exit(f"SLUICE_HTTP_HOST: {host} is no address ({error.strerror})")
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                sys.exit(f"SLUICE_HTTP_HOST: {host} is no address of this machine")
            sys.exit(f"{variable}: port {port} cannot be used ({os.strerror(error.errno)})")


def _look_at(host, port):
    """As the workers will listen there: at `::` for IPv4 too. Raises OSError."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen()


def child_exit(server, worker):
    from prometheus_client import multiprocess  # it looks for the directory when it is imported

    multiprocess.mark_process_dead(worker.pid)
