"""What `sluice up` is told, and what it tells its two children by it."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
LOADING_PATIENCE_S = 30.0  # for models that load, before those that are loaded are served
# Where TensorFlow Serving has its metrics too, and Prometheus looks by deploy/'s settings.
METRICS_PATH = "/monitoring/prometheus/metrics"
MODELS, MONITORING = "models.config", "monitoring.config"  # files of the working directory


@dataclass(frozen=True)
class Options:
    """What `sluice up` is told.

    host: where HTTP and gRPC are listened on.
    metrics_port: where the model server has its metrics; 0 is none.
    asks_for_keys: whether the gateway does.
    tls: whether the gateway is told to speak HTTPS, with certificates of the user's.
    tls_self_signed: make a certificate for it.
    trusted_keys: the public keys of those whose versions are served, and no others.
    other_ports: of the gateway's own, by the variable that sets each; 0 is none.
    drain_timeout_s: how long the gateway may take to answer what it has accepted.
    """

    model_repository: Path
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    other_ports: dict[str, int]
    drain_timeout_s: float
    allow_reload_config: bool = False
    asks_for_keys: bool = False
    tls: bool = False
    tls_self_signed: bool = False
    trusted_keys: Path | None = None

    @property
    def model_server_host(self) -> str:
        """Where gRPC and metrics are listened on: the model server asks nobody for a key, so where
        the gateway does, only this machine reaches it."""
        return "127.0.0.1" if self.asks_for_keys else self.host

    @property
    def tensorflow_serving(self) -> str | None:
        """Its command, where it is the model server."""
        return None if self.trusted_keys else shutil.which(TENSORFLOW_MODEL_SERVER)

    @property
    def ports(self) -> dict[str, int]:
        """All that are to be listened on, by the option or variable that sets each."""
        ports = {
            "--http-port": self.http_port,
            "--grpc-port": self.grpc_port,
            "--metrics-port": self.metrics_port,
            **self.other_ports,
        }
        return {name: port for name, port in ports.items() if port}


def write_monitoring(work_dir: Path) -> None:
    """The file that turns the model server's metrics on. Raises OSError."""
    text = f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n'
    (work_dir / MONITORING).write_text(text)


def model_server_command(options: Options, work_dir: Path) -> list[str]:
    """The same flags either way, as the embedded server is TensorFlow Serving's twin; but for those
    that only the twin has."""
    flags = [
        f"--port={options.grpc_port}",
        f"--model_config_file={work_dir / MODELS}",
        "--model_config_file_poll_wait_seconds=1",
        # A label and its version come in one list, and the version takes a while to load.
        "--allow_version_labels_for_unavailable_models=true",
        # Its default of 4 threads a core turns callers away while cores are idle.
        f"--grpc_max_threads={max(64, 16 * (os.cpu_count() or 1))}",
    ]
    if options.metrics_port:
        flags += [
            f"--rest_api_port={options.metrics_port}",
            f"--monitoring_config_file={work_dir / MONITORING}",
        ]
    if options.tensorflow_serving:
        # Over a model that does not load at the start it ends; else after five minutes of trying.
        return [options.tensorflow_serving, *flags, "--max_num_load_retries=0"]
    own = [
        f"--bind_address={options.model_server_host}",
        f"--allow_reload_config={str(options.allow_reload_config).lower()}",
        # Of each version the graph that this CPU is quickest with. TensorFlow Serving takes one
        # kind for all, and ends where a version has none.
        "--saved_model_tags=auto",
        # Until its health says so the gateway asks it for no model.
        f"--loading_patience_seconds={LOADING_PATIENCE_S:g}",
    ]
    if options.trusted_keys:
        own.append(f"--trusted_keys={options.trusted_keys.absolute()}")
    return [*python("service.modelserver"), *flags, *own]


def gateway_environment(
    options: Options, work_dir: Path, model_server: str, self_signed: tuple[Path, Path] | None
) -> dict[str, str]:
    """The variables of a gateway before the server at `model_server`; `self_signed`, the
    certificate and key that were made for it."""
    # A laptop has no use for a third port, and a second `sluice up` would not get it.
    unless_set = {
        "SLUICE_ADMIN_PORT": "0",
        "SLUICE_PUBLIC_METRICS": "on",
        "SLUICE_MODEL_REPOSITORY": str(options.model_repository.resolve()),
    }
    if self_signed:
        certificate, key = map(str, self_signed)
        unless_set |= {"SLUICE_TLS_CERTIFICATE_FILE": certificate, "SLUICE_TLS_KEY_FILE": key}
    return {
        "SLUICE_MODEL_SERVER": model_server,
        "SLUICE_MODEL_CONFIG_FILE": str(work_dir / MODELS),
        "SLUICE_HTTP_HOST": options.host,
        "SLUICE_HTTP_PORT": str(options.http_port),
        **{name: os.environ.get(name, value) for name, value in unless_set.items()},
    }


def python(module: str, *arguments: str) -> list[str]:
    """-P keeps folders of the current directory from being taken for our packages."""
    return [sys.executable, "-P", "-m", module, *arguments]
