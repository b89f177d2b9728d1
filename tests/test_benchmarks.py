"""Benchmarks: what they write into docs/, each in its own place, and some of them at toy size."""

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import UnknownName

ROOT = Path(__file__).parent.parent
AMX = "flags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\n"
AVX512_BF16 = "flags\t\t: fpu avx512f avx512_bf16\n"
AVX2 = "flags\t\t: fpu avx2\n"
KINDS = {AMX: "AMX", AVX512_BF16: "AVX512-BF16", AVX2: "no bfloat16"}


@pytest.fixture
def benchmark(monkeypatch):
    """`benchmark(name)` -> that script, as a module."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module


@pytest.fixture
def measuring(benchmark, monkeypatch, tmp_path):
    """The module, with a docs/ of its own."""
    module = benchmark("measuring")
    monkeypatch.setattr(module, "DOCS", tmp_path)
    return module


@pytest.mark.parametrize(("flags", "kind"), KINDS.items(), ids=KINDS.values())
def test_a_kind_of_cpu_is_what_it_computes_bfloat16_with(
    measuring, monkeypatch, tmp_path, flags, kind
):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    (tmp_path / "cpuinfo").write_text(flags)
    assert measuring.kind_of_cpu(tmp_path / "cpuinfo") == kind
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert measuring.kind_of_cpu(tmp_path / "cpuinfo") == "no bfloat16"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    held = "no bfloat16" if kind == "no bfloat16" else "AVX512-BF16"
    assert measuring.kind_of_cpu(tmp_path / "cpuinfo") == held


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_page_has_a_place_for_each_kind_of_cpu(benchmark, kind):
    table = benchmark("measuring").read_docs("graphs.md", f"make bench-graphs, {kind}").strip()
    assert table.startswith("20") or not table  # its date, where it was measured


def test_one_table_is_written_and_the_others_stay(measuring, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Figures\n<!-- a: begin -->\n\nold\n\n<!-- a: end -->\n"
        "<!-- a, AMX: begin -->\n\nothers\n\n<!-- a, AMX: end -->\nThe end\n"
    )
    measuring.write_docs("page.md", "a", "new")
    assert page.read_text() == (
        "Figures\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\n"
        "<!-- a, AMX: begin -->\n\nothers\n\n<!-- a, AMX: end -->\nThe end\n"
    )
    assert measuring.read_docs("page.md", "a, AMX").strip() == "others"


def test_what_the_page_has_no_place_for_is_not_written(measuring, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- a: begin -->\n\nold\n\n<!-- a: end -->\n")
    with pytest.raises(SystemExit, match=r"docs/page\.md has no place for what is measured"):
        measuring.write_docs("page.md", "b", "new")
    assert page.read_text() == "<!-- a: begin -->\n\nold\n\n<!-- a: end -->\n"


def test_steps_of_a_request_are_measured_hot_and_cold(benchmark, monkeypatch, tmp_path, capsys):
    cold = benchmark("cold")
    monkeypatch.setattr(cold, "ROUNDS", 3)
    asyncio.run(cold.measure(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    steps = [line.partition(": ")[0].split(" bytes, ") for line in lines]
    assert {int(size) for size, _ in steps} == {0, cold.MEGABYTES << 20}
    assert len({step for _, step in steps}) == len(steps) / 2 > 1


@pytest.mark.slow
def test_resizing_bytes_shows_the_same_picture_and_is_measured():
    script = ROOT / "benchmarks" / "large_pictures.py"
    command = [sys.executable, str(script), "--rounds=2", "--seconds=0.1"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert "at most 0 of 255 apart" in done.stdout
    rows = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["resized", "bytes", "floats"]


@pytest.mark.slow
def test_calls_joined_in_the_graph_are_measured_beside_the_flag():
    script = ROOT / "benchmarks" / "encoded_batching.py"
    command = [sys.executable, str(script), "--rounds=2", "--seconds=0.3", "--clients=2"]
    command += ["--rows=1", "--models=small", "--threads=0"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    names = ["", "as it is", "--enable_batching", "in the graph, 0 threads"]
    assert [row[1].strip() for row in rows] == names * 4  # 2 clients and 1, gRPC and HTTP
    assert all(row[-2].strip().startswith("0 of ") for row in rows if row[1].strip())


@pytest.fixture
def thresholds(benchmark, monkeypatch, tmp_path):
    """The script, with files of its own."""
    module = benchmark("thresholds")
    monkeypatch.setattr(module, "ROWS", tmp_path)
    return module


def test_a_recipes_new_rows_leave_those_of_the_others(thresholds, measuring, monkeypatch, tmp_path):
    page = measuring.DOCS / thresholds.PAGE
    page.write_text(
        "Before\n<!-- thresholds: begin -->\n\n"
        "| `resnet50` old |\n| `digits` old |\n| `mlp` old |\n"
        "\n<!-- thresholds: end -->\nBehind\n"
    )
    (tmp_path / "mlp.md").write_text("| `mlp` new |\n| `mlp` new, too |\n")
    monkeypatch.setattr(sys, "argv", ["thresholds.py", "--docs"])
    thresholds.main()
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("| `")] == [
        "| `digits` old |",
        "| `mlp` new |",
        "| `mlp` new, too |",
        "| `resnet50` old |",
    ]
    assert text.startswith("Before\n") and text.endswith("Behind\n")
    assert f"3 of {len(thresholds.RECIPES)} recipes" in text


def test_the_page_is_read_as_it_was_written(thresholds, benchmark):
    block = benchmark("measuring").read_docs(thresholds.PAGE, thresholds.BLOCK)
    assert block.strip() == "\n".join(thresholds._table(thresholds._known()))


def test_of_a_card_the_page_shows_no_pictures_and_no_settings(benchmark):
    card = (
        "# digits\n\n![Loss](training.png)\n\n## How it was made\n\n"
        "| setting | value |\n| --- | --- |\n| seed | 0 |\n\nTrained in 6 s.\n"
    )
    assert benchmark("card").shown(card) == "# digits\n\n## How it was made\n\nTrained in 6 s.\n"


@pytest.mark.slow
def test_what_was_measured_is_kept_where_what_comes_next_fails(thresholds, monkeypatch, tmp_path):
    monkeypatch.setitem(thresholds.LESS, "digits", {"epochs": 1})
    monkeypatch.setattr(sys, "argv", ["thresholds.py", "digits", "none-such"])
    with pytest.raises(UnknownName, match="none-such"):
        thresholds.main()
    rows = (tmp_path / "digits.md").read_text().splitlines()
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| `digits` epochs=1", "`serve,bf16`"],
        ["| `digits` epochs=1", "`serve,gpu`"],
    ]
    assert {row.count("|") for row in rows} == {8}
