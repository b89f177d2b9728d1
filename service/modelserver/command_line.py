"""The command line: `--flag=value` and `--flag value`; a boolean is `--flag`, `--flag=true` or
`--flag=false`.

argparse reads it, and not click, which reads the rest of `sluice`: this many flags need groups in
--help, and click's help is one list.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

from service.modelserver.options import IGNORED, Options, UsageError
from sluice.wire.nearest import nearest


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
