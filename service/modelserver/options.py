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
    model_name: str = _flag("default", "name of the one model (without --model_config_file)")
    model_base_path: str = _flag("", "directory of the one model: <base>/<version>/saved_model.pb")
    model_config_file: str = _flag("", "ModelServerConfig in text form: the models to serve")
    model_config_file_poll_wait_seconds: float = _flag(
        0, "seconds between readings of the config file; 0: read it once")
    model_repository: str = _flag(
        "", "ours: serve every model directory under this one, later ones included")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "allow a new label on a version that is not available (yet)")
    force_allow_any_version_labels_for_unavailable_models: bool = _flag(
        False, "allow any label on a version that is not available")
    file_system_poll_wait_seconds: float = _flag(
        1.0, "seconds between looks at the disk; 0: look once, below 0: never")
    num_load_threads: int = _flag(0, "versions loaded at the same time; 0: two")
    max_num_load_retries: int = _flag(5, "how often a version that fails is tried again unchanged")
    load_retry_interval_micros: int = _flag(60_000_000, "microseconds between those")
    saved_model_tags: str = _flag("serve", "comma-separated tags of the meta graph to load")
    enable_model_warmup: bool = _flag(
        True, "run assets.extra/tf_serving_warmup_requests before a version takes traffic")
    num_request_iterations_for_warmup: int = _flag(0, "how often each of them is run; 0: once")
    grpc_max_threads: int = _flag(
        4 * (os.cpu_count() or 1), "calls that run at the same time; the others wait in line")
    enable_serialization_as_tensor_content: bool = _flag(
        False, "outputs travel as tensor_content instead of typed values")
    drain_seconds: float = _flag(
        30.0, "ours: seconds that accepted calls have to finish after SIGTERM")


# TensorFlow Serving's flags that change nothing here, and why.
IGNORED: dict[str, str] = {}


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
            text = rest.pop(0)
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
        raise UsageError("name the models: --model_base_path, --model_config_file or "
                         "--model_repository")
    if options.model_repository and (options.model_base_path or options.model_config_file):
        raise UsageError("--model_repository cannot be combined with --model_base_path or "
                         "--model_config_file")
