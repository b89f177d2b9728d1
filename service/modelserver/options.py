"""The command line: TensorFlow Serving's flags, spelled as tensorflow_model_server spells them.

`--flag=value` and `--flag value`; a boolean is `--flag`, `--flag=true` or `--flag=false`.
"""

import dataclasses
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class UsageError(Exception):
    """A command line that cannot be followed."""


def _flag(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Options:
    """Every flag that has a meaning here; the field's name is the flag's."""

    port: int = _flag(8500, "TCP port for gRPC; 0 takes a free one")
    grpc_socket_path: str = _flag("", "a UNIX socket to listen on as well")
    model_name: str = _flag("default", "name of the one model (without --model_config_file)")
    model_base_path: str = _flag(
        "", "directory of the one model, with VERSION/saved_model.pb in it"
    )
    model_config_file: str = _flag("", "ModelServerConfig in text form: the models to serve")
    model_config_file_poll_wait_seconds: float = _flag(
        0.0, "seconds between looks at that file; 0: read it once"
    )
    model_repository: str = _flag(
        "", "ours: serve every model directory under this one, later ones included"
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "allow a new label on a version that is not available (yet)"
    )
    force_allow_any_version_labels_for_unavailable_models: bool = _flag(
        False, "allow any label on a version that is not available"
    )
    file_system_poll_wait_seconds: float = _flag(
        1.0, "seconds between looks at the model directories; 0 or less: look once"
    )
    num_load_threads: int = _flag(0, "versions loaded at the same time; 0: two")
    max_num_load_retries: int = _flag(5, "how often a version that fails is tried again unchanged")
    load_retry_interval_micros: int = _flag(60_000_000, "microseconds between those")
    saved_model_tags: str = _flag("serve", "comma-separated tags of the meta graph to load")
    enable_model_warmup: bool = _flag(
        True, "run assets.extra/tf_serving_warmup_requests before a version takes traffic"
    )
    num_request_iterations_for_warmup: int = _flag(0, "how often each of them is run; 0: once")
    enable_batching: bool = _flag(False, "join calls that wait at the same time into one run")
    batching_parameters_file: str = _flag("", "BatchingParameters in text form")
    enable_per_model_batching_parameters: bool = _flag(
        False, "take them from batching_params.pbtxt in each version's directory instead"
    )
    enable_serialization_as_tensor_content: bool = _flag(
        False, "outputs travel as tensor_content instead of typed values"
    )
    grpc_max_threads: int = _flag(
        4 * (os.cpu_count() or 1), "calls that run at the same time; the others wait in line"
    )
    grpc_channel_arguments: str = _flag(
        "", "comma-separated gRPC arguments: grpc.max_connection_age_ms=2000,..."
    )
    ssl_config_file: str = _flag("", "SSLConfig in text form: TLS, and client certificates")
    rest_api_port: int = _flag(0, "TCP port for metrics; there is no REST API here")
    monitoring_config_file: str = _flag("", "MonitoringConfig in text form: Prometheus metrics")
    tensorflow_session_parallelism: int = _flag(0, "threads within and between ops; 0: all cores")
    tensorflow_intra_op_parallelism: int = _flag(0, "threads within one op; 0: all cores")
    tensorflow_inter_op_parallelism: int = _flag(0, "ops that run at once; 0: all cores")
    tensorflow_session_config_file: str = _flag("", "TensorFlow's ConfigProto in text form")
    per_process_gpu_memory_fraction: float = _flag(
        0.0, "share of each GPU's memory to take at once; 0: take more as it is needed"
    )
    drain_seconds: float = _flag(
        30.0, "ours: seconds that accepted calls have to finish after SIGTERM"
    )

    def channel_arguments(self) -> list[tuple[str, int | str]]:
        """--grpc_channel_arguments, numbers as numbers. Raises UsageError."""
        arguments: list[tuple[str, int | str]] = []
        for pair in filter(None, self.grpc_channel_arguments.split(",")):
            name, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"--grpc_channel_arguments: {pair!r} is not name=value")
            is_number = value.lstrip("-").isdigit()
            arguments.append((name, int(value) if is_number else value))
        return arguments


# TensorFlow Serving's flags that change nothing here, and why.
IGNORED = {
    "enable_grpc_healthcheck_service": "the health service is always there",
    "enable_profiler": "there is no profiler service",
    "enable_signature_method_name_check": "method names are not checked, which is the default",
    "enforce_session_run_timeout": "a run that has begun is finished",
    "flush_filesystem_caches": "nothing is cached",
    "mixed_precision": "models run as they were saved",
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
    "xla_cpu_compilation_enabled": "XLA costs more than it gains on CPUs",
}


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """The options, and the flags of TensorFlow Serving's that were given but change nothing.

    Raises UsageError for a flag that neither server has, and for a value that does not fit.
    """
    types = typing.get_type_hints(Options)
    values: dict[str, Any] = {}
    ignored: list[str] = []
    for name, text in _pairs(arguments, types):
        if name in types:
            values[name] = _convert(name, text, types[name])
        elif name in IGNORED:
            ignored.append(name)
        else:
            raise UsageError(f"unknown flag --{name}")
    options = Options(**values)
    _check(options)
    return options, ignored


def usage() -> str:
    """One line a flag."""
    fields = dataclasses.fields(Options)
    lines = [f"  --{field.name}={field.default}\t{field.metadata['help']}" for field in fields]
    return "\n".join(["usage: sluice modelserver --flag=value ...", *lines])


def _pairs(arguments: Sequence[str], types: dict[str, Any]) -> list[tuple[str, str]]:
    """Flag names and their texts; a boolean alone is `true`."""
    pairs = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise UsageError(f"unexpected argument {argument!r}; flags are --name=value")
        name, equals, text = argument[2:].partition("=")
        if not equals and types.get(name) is bool:
            text = "true"
        elif not equals and rest and not rest[0].startswith("--"):
            text = rest.pop(0)  # also a number below 0: flags begin with two dashes
        elif not equals and name in types:
            raise UsageError(f"--{name} needs a value")
        pairs.append((name, text))
    return pairs


def _convert(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"--{name} is true or false, not {text!r}")
        return text.lower() in ("true", "1")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"--{name} is a number, not {text!r}") from None


def _check(options: Options) -> None:
    if not (options.model_base_path or options.model_config_file or options.model_repository):
        raise UsageError(
            "name the models: --model_base_path, --model_config_file or --model_repository"
        )
    if options.batching_parameters_file and not options.enable_batching:
        raise UsageError("--batching_parameters_file is set without --enable_batching")
    options.channel_arguments()
    if options.model_repository and (options.model_base_path or options.model_config_file):
        raise UsageError(
            "--model_repository cannot be combined with --model_base_path or --model_config_file"
        )
