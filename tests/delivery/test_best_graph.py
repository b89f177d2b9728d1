"""best-graph.sh, which starts TensorFlow Serving in a container: run as it is, with `echo` for the
server and other machines' /proc/cpuinfo."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from sluice.wire.processor import computes_bfloat16
from sluice.wire.protos.tensorflow_pb2 import SavedModel

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = DEPLOY / "kubernetes/base/best-graph.sh"
CAN = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\nbugs\t\t: none\n"
CANNOT = "processor\t: 0\nmodel name\t: avx512_bf16\nflags\t\t: fpu avx512f avx2\n"
NEW = "--saved_model_tags=serve,"


@pytest.fixture
def models(tmp_path):
    """`models(number, *tags, model=…)` writes a version with a graph for each of `tags`."""

    def write(number: int, *tags: str, model: str = "digits") -> Path:
        proto = SavedModel()
        for each in tags:
            proto.meta_graphs.add().meta_info_def.tags.extend(each.split(","))
            proto.meta_graphs[-1].signature_def["serving_default"].method_name = "predict"
        version = tmp_path / "models" / model / str(number)
        version.mkdir(parents=True)
        (version / "saved_model.pb").write_bytes(proto.SerializeToString())
        return version.parent

    return write


@pytest.fixture
def started(tmp_path):
    """`started(*flags, cpu=…)` -> the flags that the server then has."""

    def start(
        *flags: str,
        cpu: str = CAN,
        gpu: bool = False,
        shell: Sequence[str] = ("sh",),
        path: str = "",
        **variables: str,
    ) -> list[str]:
        (tmp_path / "cpuinfo").write_text(cpu, encoding="latin-1")
        (tmp_path / "nvidiactl").touch() if gpu else (tmp_path / "nvidiactl").unlink(True)
        done = subprocess.run(
            [*shell, SCRIPT, "echo", *flags],
            env={
                "PATH": path or os.environ["PATH"],
                "CPUINFO": str(tmp_path / "cpuinfo"),
                "NVIDIA": str(tmp_path / "nvidiactl"),
                **variables,
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert bool(done.stderr) == (NEW in done.stdout), done.stderr
        return done.stdout.split()

    return start


@pytest.fixture
def listed(tmp_path):
    """`listed(text)` -> the flag of a model list."""

    def write(text: str) -> str:
        path = tmp_path / "models.config"
        path.write_text(text.replace("/models", str(tmp_path / "models")))
        return f"--model_config_file={path}"

    return write


def config(*names: str, more: str = "") -> str:
    every = [f'config {{ name: "{name}" base_path: "/models/{name}" {more}}}' for name in names]
    return "model_config_list { " + " ".join(every) + " }"


@pytest.mark.parametrize(
    ("cpu", "gpu", "variables", "tags"),
    [
        (CAN, False, {}, ["serve,bf16"]),
        (CAN.replace("avx512_bf16 amx_tile", "amx_bf16"), False, {}, ["serve,bf16"]),
        (CANNOT, False, {}, []),
        ("", False, {}, []),
        (CAN, False, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, []),
        (CAN, False, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, ["serve,bf16"]),
        (CAN, False, {"ONEDNN_MAX_CPU_ISA": "dnnl_avx2"}, []),
        (CAN, False, {"TF_ENABLE_ONEDNN_OPTS": "0"}, []),
        (CAN, False, {"TF_ENABLE_ONEDNN_OPTS": "False"}, []),
        (CAN, False, {"TF_ENABLE_ONEDNN_OPTS": "1"}, ["serve,bf16"]),
        ("flags\t\t: \x00\xff\n" + CAN, False, {}, ["serve,bf16"]),
        (CANNOT, True, {}, ["serve,gpu"]),
        (CAN, True, {}, ["serve,gpu"]),
    ],
)
def test_the_graph_is_the_machines(models, started, tmp_path, cpu, gpu, variables, tags):
    base = models(1, "serve", "serve,bf16", "serve,gpu")
    flags = ["--port=8500", f"--model_base_path={base}"]
    expected = [*flags, *(f"--saved_model_tags={each}" for each in tags)]
    assert started(*flags, cpu=cpu, gpu=gpu, **variables) == expected
    if not gpu:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert computes_bfloat16(tmp_path / "cpuinfo") == bool(tags), "the twin says so too"


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
def test_it_needs_no_more_than_any_shell(models, started, listed, tmp_path, shell):
    name, *arguments = shell.split()
    if not (found := shutil.which(name)):
        pytest.skip(f"{name} is not here")
    models(1, "serve", "serve,bf16")
    only = ""
    if name == "busybox":  # with its own grep, sed and sort
        (only := tmp_path / "applets").mkdir()
        subprocess.run([found, "--install", "-s", only], check=True)
    flag = listed(config("digits"))
    started_by = functools.partial(started, shell=(found, *arguments), path=str(only))
    assert started_by(flag) == [flag, f"{NEW}bf16"]
    models(1, "serve", model="faces")
    flag = listed(config("digits", "faces"))
    assert started_by(flag) == [flag]


def test_a_gpu_serves_no_graph_for_cpus(models, started):
    base = models(1, "serve", "serve,bf16")
    assert started(f"--model_base_path={base}", gpu=True) == [f"--model_base_path={base}"]


def test_an_explicit_choice_wins(models, started):
    flags = [f"--model_base_path={models(1, 'serve', 'serve,bf16')}", "--saved_model_tags=serve"]
    assert started(*flags) == flags


def test_one_model_without_it_keeps_all_from_it(models, started, listed):
    models(1, "serve,bf16", "serve")
    flag = listed(config("digits"))
    assert NEW + "bf16" in started(flag)
    models(7, "serve", model="faces")
    flag = listed(config("digits", "faces"))
    assert started(flag) == [flag]
    models(8, "serve", "serve,bf16", model="faces")
    assert NEW + "bf16" in started(flag)


def test_versions_before_the_newest_count_where_they_are_served(models, started, listed):
    models(9, "serve")
    models(10, "serve", "serve,bf16")
    assert NEW + "bf16" in started(listed(config("digits")))
    flag = listed(config("digits", more="model_version_policy { all {} } "))
    assert started(flag) == [flag]


@pytest.mark.parametrize("text", [config("digits", "not-there"), config("empty"), "", "{"])
def test_where_nothing_is_published_yet_nothing_is_said(models, started, listed, tmp_path, text):
    models(1, "serve", "serve,bf16")
    (tmp_path / "models" / "empty").mkdir()
    flag = listed(text)
    assert started(flag) == [flag]


def test_what_is_no_version_and_no_saved_model_does_not_count(models, started):
    base = models(1, "serve", "serve,bf16")
    (base / ".fetching-2").mkdir()
    (base / "notes 3").mkdir()
    assert NEW + "bf16" in "".join(started(f"--model_base_path={base}"))
    (base / "2").mkdir()
    assert started(f"--model_base_path={base}") == [f"--model_base_path={base}"]


def test_a_list_may_have_its_lines_anywhere(models, started, listed):
    models(1, "serve", "serve,bf16")
    models(1, "serve", model="faces")
    flag = listed(re.sub(r"(name|base_path): ", "\\1\t:\n  ", config("digits")))
    assert started(flag) == [flag, f"{NEW}bf16"]
    flag = listed(re.sub(r"(name|base_path): ", "\\1\t:\n  ", config("digits", "faces")))
    assert started(flag) == [flag]


def test_a_graph_is_found_behind_any_bytes(models, started):
    base = models(1, "serve")
    proto = SavedModel.FromString((base / "1" / "saved_model.pb").read_bytes())
    proto.meta_graphs[0].signature_def["a\n\0b"].method_name = "\0" * 100
    proto.meta_graphs.add().meta_info_def.tags.extend(["serve", "bf16"])
    (base / "1" / "saved_model.pb").write_bytes(proto.SerializeToString())
    assert NEW + "bf16" in "".join(started(f"--model_base_path={base}"))


def test_a_comment_in_the_list_is_none_of_its_models(models, started, listed):
    models(1, "serve", "serve,bf16")
    text = config("digits").replace("config {", "\n# base_path: '/old'\nconfig {")
    assert NEW + "bf16" in started(listed(text))


def test_both_installations_start_the_server_by_it():
    for file in ("kubernetes/base/modelserver.yaml", "compose.yaml"):
        assert re.search(r"best-graph\.sh,? tensorflow_model_server", (DEPLOY / file).read_text())
