"""The command line: TensorFlow Serving's flags, spelled as tensorflow_model_server spells them.

`--flag=value` and `--flag value`; a boolean is `--flag`, `--flag=true` or `--flag=false`.
argparse reads it, and not click, which reads the rest of `sluice`: this many flags need groups in
--help, and click's help is one list.
"""

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from typing import Any

from sluice.wire.nearest import nearest


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
        "models", 1.0, "seconds between looks at the model directories; 0 or less: look once"
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


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """The options, and the flags of TensorFlow Serving's that were given but change nothing.

    Raises UsageError for a flag that neither server has, and for a value that does not fit. Prints
    what --help and --version ask for, and raises SystemExit then.
    """
    try:
        given, rest = _parser().parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(f"{error.argument_name} {error.message}") from None
    if rest:
        raise UsageError(_unexpected(rest[0]))
    values = vars(given)
    options = Options(**{name: value for name, value in values.items() if name not in IGNORED})
    _check(options)
    return options, [name for name in IGNORED if name in values]


def _reader(read: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    def reader(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, KeyError):
            raise argparse.ArgumentTypeError(f"is {expected}, not {text!r}") from None

    return reader


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

# How argparse reads a flag, by the type of its default.
_READ: dict[type, dict[str, Any]] = {
    str: {"metavar": "TEXT"},
    int: {"metavar": "NUMBER", "type": _reader(int, "a whole number")},
    float: {"metavar": "NUMBER", "type": _reader(float, "a number")},
    bool: {
        "metavar": "true|false",
        "type": _reader(lambda text: _BOOLEANS[text.lower()], "true or false"),
        "nargs": "?",
        "const": True,
    },
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluice modelserver",
        usage="%(prog)s --flag=value ...",
        description="Serve SavedModels over gRPC, as TensorFlow Serving does.",
        argument_default=argparse.SUPPRESS,  # Options has the defaults
        add_help=False,  # else there is -h as well, and -host=... asks for help
        allow_abbrev=False,  # a flag that is added later must not change what another one means
        exit_on_error=False,
    )
    parser.add_argument("--help", action="help", help="show this and exit")
    parser.add_argument("--version", action="version", version=_versions())
    for title, fields in groupby(
        dataclasses.fields(Options), lambda field: field.metadata["group"]
    ):
        group = parser.add_argument_group(title)
        for field in fields:
            group.add_argument(f"--{field.name}", help=_help(field), **_READ[type(field.default)])
    group = parser.add_argument_group("accepted from TensorFlow Serving's flags, changing nothing")
    for name, reason in IGNORED.items():
        group.add_argument(f"--{name}", help=reason, nargs="?", metavar="TEXT")
    return parser


def _versions() -> str:
    # Not tensorflow.__version__: its import takes seconds.
    return f"sluice modelserver {version('sluice')}, TensorFlow {version('tensorflow')}"


def _help(field: "dataclasses.Field[Any]") -> str:
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    text: str = field.metadata["help"]
    return text if default == "" else f"{text} [{default}]"


def _unexpected(argument: str) -> str:
    if not argument.startswith("--"):
        return f"unexpected argument {argument!r}; flags are --name=value"
    name = argument[2:].partition("=")[0]
    known = [*(field.name for field in dataclasses.fields(Options)), *IGNORED]
    meant = nearest(name, known)
    return f"unknown flag --{name}" + (f"; did you mean --{meant}?" if meant else "")


def _check(options: Options) -> None:
    if not (options.model_base_path or options.model_config_file or options.model_repository):
        raise UsageError(
            "name the models: --model_base_path, --model_config_file or --model_repository"
        )
    if options.batching_parameters_file and not options.enable_batching:
        raise UsageError("--batching_parameters_file is set without --enable_batching")
    if options.mixed_precision not in ("", "bfloat16"):
        raise UsageError(f"--mixed_precision is bfloat16, not {options.mixed_precision!r}")
    options.channel_arguments()
    if options.model_repository and (options.model_base_path or options.model_config_file):
        raise UsageError(
            "--model_repository cannot be combined with --model_base_path or --model_config_file"
        )
