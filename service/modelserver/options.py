"""The flags that there are, spelled as tensorflow_model_server spells them."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any


class UsageError(Exception):
    """A command line that cannot be followed."""


def _flag(group: str, default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"group": group, "help": help_text})


@dataclass(frozen=True)
class Options:
    """Every flag that has a meaning here: the field's name is the flag's, its default's type too.

    Each is said here once; the command line, --help and the test of docs/modelserver.md read it.
    """

    model_name: str = _flag("models", "default", "name of the one model in --model_base_path")
    model_base_path: str = _flag(
        "models", "", "directory of the one model, with VERSION/saved_model.pb in it"
    )
    model_config_file: str = _flag(
        "models", "", "file that lists the models to serve: ModelServerConfig in text form"
    )
    model_config_file_poll_wait_seconds: float = _flag(
        "models", 0.0, "seconds between looks at --model_config_file; 0: read it once"
    )
    file_system_poll_wait_seconds: float = _flag(
        "models", 0.5, "seconds between looks at the model directories; 0 or less: look once"
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        "versions", False, "allow a new label on a version that is not available (yet)"
    )
    force_allow_any_version_labels_for_unavailable_models: bool = _flag(
        "versions", False, "allow any label on a version that is not available"
    )
    num_load_threads: int = _flag("versions", 0, "versions loaded at the same time; 0: two")
    max_num_load_retries: int = _flag(
        "versions", 5, "how often a version that failed to load is tried again unchanged"
    )
    load_retry_interval_micros: int = _flag(
        "versions", 60_000_000, "microseconds from a failed load to the next try"
    )
    saved_model_tags: str = _flag(
        "versions",
        "serve",
        "comma-separated tags of the meta graph to load; auto: serve,bf16 where the CPU has "
        "bfloat16 instructions and the version such a graph, else serve",
    )
    enable_model_warmup: bool = _flag(
        "versions",
        True,
        "run assets.extra/tf_serving_warmup_requests before a version takes traffic",
    )
    num_request_iterations_for_warmup: int = _flag(
        "versions", 0, "how often each warm-up request is run; 0: once"
    )
    enable_batching: bool = _flag(
        "batching", False, "join calls that wait at the same time into one run"
    )
    batching_parameters_file: str = _flag(
        "batching", "", "how to join calls: BatchingParameters in text form"
    )
    enable_per_model_batching_parameters: bool = _flag(
        "batching",
        False,
        "take the batching parameters from batching_params.pbtxt in each version's directory",
    )
    port: int = _flag("network", 8500, "TCP port for gRPC; 0 takes a free one")
    grpc_socket_path: str = _flag("network", "", "a UNIX socket to listen on as well")
    grpc_max_threads: int = _flag(
        "network",
        4 * (os.cpu_count() or 1),
        "calls that run at the same time; the others wait in line",
    )
    grpc_channel_arguments: str = _flag(
        "network", "", "comma-separated gRPC arguments: grpc.max_connection_age_ms=2000,..."
    )
    ssl_config_file: str = _flag(
        "network", "", "TLS, and client certificates: SSLConfig in text form"
    )
    enable_serialization_as_tensor_content: bool = _flag(
        "network", False, "send outputs as tensor_content instead of typed values"
    )
    tensorflow_session_parallelism: int = _flag(
        "TensorFlow", 0, "threads within and between ops; 0: all cores"
    )
    tensorflow_intra_op_parallelism: int = _flag(
        "TensorFlow", 0, "threads within one op; 0: all cores"
    )
    tensorflow_inter_op_parallelism: int = _flag(
        "TensorFlow",
        0,
        "ops that run at the same time; 0: one, in a call's own thread, or all cores for strings",
    )
    tensorflow_session_config_file: str = _flag(
        "TensorFlow", "", "the session's settings: TensorFlow's ConfigProto in text form"
    )
    per_process_gpu_memory_fraction: float = _flag(
        "TensorFlow",
        0.0,
        "share of each GPU's memory to take at once; 0: take more as it is needed",
    )
    mixed_precision: str = _flag(
        "TensorFlow", "", "bfloat16: oneDNN computes in bfloat16, on CPUs that can"
    )
    rest_api_port: int = _flag("metrics", 0, "TCP port for metrics; there is no REST API here")
    monitoring_config_file: str = _flag(
        "metrics", "", "turns Prometheus metrics on: MonitoringConfig in text form"
    )
    model_repository: str = _flag(
        "not in TensorFlow Serving",
        "",
        "serve every model directory under this one, later ones included",
    )
    bind_address: str = _flag(
        "not in TensorFlow Serving",
        "0.0.0.0",
        "address to listen on, for metrics too: 127.0.0.1 is this machine alone, :: is IPv6",
    )
    check_input_shapes: bool = _flag(
        "not in TensorFlow Serving",
        True,
        "refuse an input whose shape contradicts the signature or the graph",
    )
    trusted_keys: str = _flag(
        "not in TensorFlow Serving",
        "",
        "file of public keys (PEM): load no version but those that one of them has signed",
    )
    allow_reload_config: bool = _flag(
        "not in TensorFlow Serving",
        True,
        "let callers of HandleReloadConfigRequest say which models are served",
    )
    loading_patience_seconds: float = _flag(
        "not in TensorFlow Serving",
        0.0,
        "seconds that health waits at the start for versions that load; 0: until all have ended",
    )
    drain_seconds: float = _flag(
        "not in TensorFlow Serving",
        30.0,
        "seconds that accepted calls have to finish after SIGTERM",
    )

    def address(self, port: int) -> str:
        """HOST:PORT to listen on, an IPv6 host in brackets."""
        host = f"[{self.bind_address}]" if ":" in self.bind_address else self.bind_address
        return f"{host}:{port}"

    def channel_arguments(self) -> list[tuple[str, int | str]]:
        """--grpc_channel_arguments, numbers as numbers. Raises UsageError."""
        arguments: list[tuple[str, int | str]] = []
        for pair in filter(None, self.grpc_channel_arguments.split(",")):
            name, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"--grpc_channel_arguments: {pair!r} is not name=value")
            arguments.append((name, _whole_number_or_text(value)))
        return arguments


def _whole_number_or_text(text: str) -> int | str:
    """As gRPC wants its arguments: it ignores a number that comes as text."""
    try:
        return int(text)
    except ValueError:
        return text


# TensorFlow Serving's flags that change nothing here, and why: a command line that was written
# for it must start this server too.
IGNORED = {
    "enable_grpc_healthcheck_service": "the health service is always there",
    "enable_profiler": "there is no profiler service",
    "enable_signature_method_name_check": "method names are not checked, which is the default",
    "enforce_session_run_timeout": "a run ends with its caller's time where it can",
    "flush_filesystem_caches": "nothing is cached",
    "num_tflite_interpreters_per_pool": "there is no TensorFlow Lite",
    "num_tflite_pools": "there is no TensorFlow Lite",
    "num_unload_threads": "versions are unloaded by the threads that load",
    "platform_config_file": "the only platform is tensorflow",
    "prefer_tflite_model": "there is no TensorFlow Lite",
    "remove_unused_fields_from_bundle_metagraph": "no meta graph is kept",
    "rest_api_enable_cors_support": "the REST API is the gateway's",
    "rest_api_num_threads": "the REST API is the gateway's",
    "rest_api_timeout_in_ms": "the REST API is the gateway's",
    "skip_initialize_tpu": "there are no TPUs",
    "thread_pool_factory_config_file": "TensorFlow's own thread pools are used",
    "use_alts_credentials": "ALTS is not offered",
    "use_tflite_model": "there is no TensorFlow Lite",
    "xla_cpu_compilation_enabled": "what a model marks for XLA is compiled in any case",
    "xla_gpu_compilation_enabled": "what a model marks for XLA is compiled in any case",
}
