"""The command line is tensorflow_model_server's: its spellings, its flags, an error for others."""

import dataclasses
import re
from pathlib import Path

import pytest

from service.modelserver.__main__ import main
from service.modelserver.command_line import parse
from service.modelserver.options import IGNORED, Options, UsageError

MODEL = "--model_base_path=/m"
FLAGS = dataclasses.fields(Options)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port=1"], {"port": 1}),
        (["--port", "1"], {"port": 1}),
        (["--enable_batching"], {"enable_batching": True}),
        (["--enable_batching=true"], {"enable_batching": True}),
        (["--enable_batching=0"], {"enable_batching": False}),
        (["--enable_batching", "--port=1"], {"enable_batching": True, "port": 1}),
        (["--file_system_poll_wait_seconds", "-1"], {"file_system_poll_wait_seconds": -1.0}),
        (["--model_name="], {"model_name": ""}),
        (["--enable_batching", "false"], {"enable_batching": False}),
        (["--port=1", "--port=2"], {"port": 2}),
    ],
)
def test_flags_are_spelled_as_tensorflow_serving_spells_them(arguments, expected):
    options, ignored = parse([MODEL, *arguments])
    assert options == Options(model_base_path="/m", **expected)
    assert not ignored


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prot=1"], r"^unknown flag --prot; did you mean --port\?$"),
        (["--prot", "1"], "unknown flag --prot;"),
        (["--model-base-path=/m"], r"did you mean --model_base_path\?"),
        (["--use_tflite_modle"], r"did you mean --use_tflite_model\?"),
        (["--colour=red"], "^unknown flag --colour$"),
        (["--enable_batch"], "unknown flag --enable_batch;"),  # no abbreviations
        (["port=1"], "unexpected argument 'port=1'"),
        (["-port=1"], "unexpected argument '-port=1'"),
        (["-host=1"], "unexpected argument '-host=1'"),
        (["--port=x"], "^--port is a whole number, not 'x'$"),
        (["--port="], "--port is a whole number, not ''"),
        (["--drain_seconds=soon"], "--drain_seconds is a number, not 'soon'"),
        (["--port"], "--port expected one argument"),
        (["--port", "--enable_batching"], "--port expected one argument"),
        (["--enable_batching=maybe"], "--enable_batching is true or false, not 'maybe'"),
        (["--batching_parameters_file=f"], "without --enable_batching"),
        (["--mixed_precision=float16"], "--mixed_precision is bfloat16, not 'float16'"),
        (["--grpc_channel_arguments=a=1,b"], "'b' is not name=value"),
        (["--model_repository=d"], "--model_repository cannot be combined"),
    ],
)
def test_what_cannot_be_followed_is_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        parse([MODEL, *arguments])


def test_no_model_at_all_is_an_error():
    with pytest.raises(UsageError, match="name the models"):
        parse([])


@pytest.mark.parametrize("spelling", ["--{}=3", "--{}"])
def test_flags_of_tensorflow_serving_without_meaning_are_reported(spelling):
    arguments = [spelling.format(name) for name in IGNORED]
    assert parse([MODEL, *arguments])[1] == list(IGNORED)


def test_channel_arguments_are_numbers_where_they_can_be():
    options = Options(grpc_channel_arguments="grpc.max_connection_age_ms=2000,grpc.x=y,grpc.z=--5")
    assert options.channel_arguments() == [
        ("grpc.max_connection_age_ms", 2000),
        ("grpc.x", "y"),
        ("grpc.z", "--5"),
    ]


def test_the_help_has_every_flag_in_its_group(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    told = capsys.readouterr().out
    for field in FLAGS:
        assert f"  --{field.name} " in told
    for name in IGNORED:
        assert f"  --{name} " in told
    titles = re.findall(r"^(\w.*):$", told, re.MULTILINE)
    assert titles[1:-1] == list(dict.fromkeys(f.metadata["group"] for f in FLAGS))


def test_a_wrong_command_line_ends_with_2_and_the_reason(capsys):
    assert main(["--prot=1"]) == 2
    assert "unknown flag --prot; did you mean --port? (--help" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("sluice modelserver ")


DOCUMENTED = (Path(__file__).parents[2] / "docs" / "modelserver.md").read_text()


@pytest.mark.parametrize("field", FLAGS, ids=lambda field: field.name)
def test_every_flag_is_documented_as_its_help_says(field):
    [row] = [line for line in DOCUMENTED.splitlines() if line.startswith(f"| `--{field.name}` |")]
    assert row.endswith(f"| {field.metadata['help']} |")
    default = {"grpc_max_threads": "4 × CPUs"}.get(field.name, str(field.default))
    assert row.split("|")[2].strip().casefold() == default.casefold()


@pytest.mark.parametrize("name", IGNORED)
def test_every_flag_without_meaning_is_documented_with_its_reason(name):
    assert f"- `--{name}`: {IGNORED[name]}\n" in DOCUMENTED
