"""What came of it: medians of the rounds, as a table, JSON, a chart and the page in docs/."""

import json
import platform
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from cases import CONNECTIONS, JPEG, JSON, SMALL
from measuring import DOCS, Figures, cores, write_docs
from verdicts import Verdict

CHART, DOCUMENT, PAGE = "images/benchmarks.png", "benchmarks.json", "benchmarks.md"
CHARTED = ((SMALL, 1), (SMALL, 32), (SMALL, 128), (JSON, 8), (JPEG, 8))
COLUMNS = ("per_second", "p50_ms", "p99_ms", "errors")

Row = tuple[str, str, int]  # contender, kind, connections (in-process: rows at a time)


class Results:
    """`failed`: why a contender could not be started, by name."""

    def __init__(self) -> None:
        self._rows: dict[Row, list[Figures]] = defaultdict(list)
        self._processes: dict[tuple[str, str, str], list[Figures]] = defaultdict(list)
        self.failed: dict[str, str] = {}

    def add(self, contender: str, kind: str, connections: int, figures: Figures) -> None:
        self._rows[contender, kind, connections].append(figures)

    def add_process(
        self, contender: str, models: Sequence[str], role: str, figures: Figures
    ) -> None:
        self._processes[contender, ", ".join(models), role].append(figures)

    def get(self, contender: str, kind: str, connections: int, figure: str) -> float | None:
        """The median of the rounds; None where it was not measured."""
        return _middle(self._rows.get((contender, kind, connections), []), figure)

    def of_process(self, contender: str, role: str, figure: str) -> float | None:
        for (name, _, its_role), rounds in self._processes.items():
            if (name, its_role) == (contender, role):
                return _middle(rounds, figure)
        return None

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _, _ in self._rows))

    def rows(self) -> Iterator[tuple[Row, Figures]]:
        """By kind, then contender, each with its medians."""
        order = {kind: place for place, kind in enumerate(CONNECTIONS)}
        names = self.names()
        for row in sorted(self._rows, key=lambda row: (order[row[1]], row[2], names.index(row[0]))):
            yield row, _medians(self._rows[row])

    def processes(self) -> Iterator[tuple[tuple[str, str, str], Figures]]:
        for key, rounds in self._processes.items():
            yield key, _medians(rounds)

    def document(self, judged: Sequence[Verdict]) -> dict[str, Any]:
        return {
            "date": str(date.today()),
            "machine": machine(),
            "rows": [
                {"contender": name, "kind": kind, "connections": connections} | figures
                for (name, kind, connections), figures in self.rows()
            ],
            "processes": [
                {"contender": name, "models": models, "role": role} | figures
                for (name, models, role), figures in self.processes()
            ],
            "not started": self.failed,
            "verdicts": [each._asdict() for each in judged],
        }


def machine() -> str:
    """In words: cores, processor, and the instructions that TensorFlow makes use of."""
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text()
        model = re.findall(r"^model name\s*: (.*)$", text, re.M)[0]
        flags = re.findall(r"^flags\s*: (.*)$", text, re.M)[0]
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{cores()} cores, {model}, {' '.join(known) or 'no AVX'}, {platform.system()}"


def print_results(results: Results, judged: Sequence[Verdict]) -> None:
    print(f"{date.today()}, {machine()}; servers and clients share the cores\n")
    print("\n".join(_lines(results, judged)))


def write_results(results: Results, judged: Sequence[Verdict]) -> None:
    """Into docs/: the page between its marks, the JSON and the chart."""
    _draw(results, DOCS / CHART)
    (DOCS / DOCUMENT).write_text(json.dumps(results.document(judged), indent=1) + "\n")
    heading = [
        f"{date.today()}; {machine()}; servers and clients share the cores. "
        f"The same as [JSON]({DOCUMENT}).",
        "",
        f"![requests per second of each]({CHART})",
        "",
    ]
    write_docs(PAGE, "make bench", "\n".join([*heading, *_lines(results, judged)]))


def _lines(results: Results, judged: Sequence[Verdict]) -> Iterator[str]:
    yield "| request | connections | by | requests/s | p50 ms | p99 ms | errors | CPU, µs |"
    yield "|---|---|---|---|---|---|---|---|"
    for (name, kind, connections), figures in results.rows():
        spent = ", ".join(
            f"{role.removesuffix(' µs')} {figures[role]:,.0f}"
            for role in figures
            if role.endswith(" µs")
        ).replace("server ", "" if "gateway µs" not in figures else "server ")
        if "cpu_us" in figures and not spent:
            spent = f"{figures['cpu_us']:,.0f}"
        many = f"{connections} at a time" if name == "in-process" else str(connections)
        yield (
            f"| {kind} | {many} | {name} | {figures['per_second']:,.1f} | "
            f"{figures['p50_ms']:,.2f} | {figures['p99_ms']:,.2f} | {figures['errors']:.0f} | "
            f"{spent} |"
        )
    yield ""
    yield "| process | start to first answer, s | memory, MB | largest process, MB | idle CPU |"
    yield "|---|---|---|---|---|"
    for (name, models, role), figures in results.processes():
        yield (
            f"| {name} ({models}), {role} | {figures['start_s']:.2f} | "
            f"{figures['memory_mb']:,.0f} | {figures['largest_mb']:,.0f} | {figures['idle']:.1%} |"
        )
    if results.failed:
        yield ""
    for name, why in results.failed.items():
        yield f"{name} could not be started: {why}"
    yield ""
    yield "| what | figure | target | |"
    yield "|---|---|---|---|"
    for each in judged:
        yield f"| {each.what} | {each.figure:,.2f}{each.remark} | {each.target} | {each.verdict} |"


def _draw(results: Results, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(CHARTED), figsize=(16, 4.2), layout="constrained")
    for axis, (kind, connections) in zip(axes, CHARTED, strict=True):
        bars = {
            name: rate
            for name in results.names()
            if (rate := results.get(name, kind, connections, "per_second")) is not None
            and name != "in-process"
        }
        bars = dict(sorted(bars.items(), key=lambda bar: bar[1]))
        colours = ["tab:orange" if name.startswith("Sluice") else "tab:gray" for name in bars]
        drawn = axis.barh(list(bars), list(bars.values()), color=colours)
        axis.bar_label(drawn, fmt="{:,.0f}", padding=2, fontsize=8)
        axis.set_title(f"{kind}, {connections} connections", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.margins(x=0.25)
    figure.suptitle("Requests per second", fontsize=10)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _medians(rounds: Sequence[Figures]) -> Figures:
    return {
        figure: statistics.median(each[figure] for each in rounds if figure in each)
        for figure in rounds[0]
    }


def _middle(rounds: Sequence[Figures], figure: str) -> float | None:
    found = [each[figure] for each in rounds if figure in each]
    return statistics.median(found) if found else None
