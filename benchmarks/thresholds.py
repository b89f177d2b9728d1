"""What half precision does to trained models: the table of thresholds in docs/graphs.md.

    python benchmarks/thresholds.py [RECIPE ...] [--set KEY=VALUE ...] [--docs]

Each recipe is trained and published with every graph, whatever they answer, and its metrics.json
read: how many rows get another class, how far ahead the first graph's was there, and the measures.
"""

import argparse
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import training

BEGIN, END = "<!-- thresholds: begin -->", "<!-- thresholds: end -->"
PAGE = Path(__file__).parent.parent / "docs" / "graphs.md"
QUICK = ("digits", "digit_sum", "two_view", "multi_head")  # some minutes on two cores
NO_LIMITS = {"optimize": "bf16,gpu", "optimize_drop": 100, "optimize_margin": 1}


def main() -> None:
    options = _options()
    settings = dict(each.split("=", 1) for each in options.settings)
    lines = "\n".join(_table(options.recipes or QUICK, settings))
    print(lines)
    if options.docs:
        page = PAGE.read_text()
        block = f"{BEGIN}\n\n{lines}\n\n{END}"
        PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: block, page, flags=re.DOTALL))


def _table(recipes: list[str], settings: Mapping[str, str]) -> Iterator[str]:
    said = "".join(f", {key} {value}" for key, value in settings.items())
    yield f"{date.today()}, recipes as they are{said}, trained and published on one machine's CPU."
    yield ""
    yield "| recipe | graph | rows | another class | lead there, at most | measure: `serve`, this |"
    yield "|---|---|---|---|---|---|"
    for name in recipes:
        with tempfile.TemporaryDirectory() as repository:
            version = training.train(
                name, model_repository=repository, settings=NO_LIMITS | settings
            )
            graphs = json.loads((version / "metrics.json").read_text())["graphs"]
        for tags, graph in graphs.items():
            if tags != "serve":
                yield f"| `{name}` | `{tags}` | {_row(graph)} |"


def _row(graph: Mapping[str, Any]) -> str:
    if "absent" in graph:
        return f"left out: {graph['absent']} | | | "
    others = ", ".join(f"{1 - share:.2%}" for share in graph["agreement"].values()) or "–"
    measures = ", ".join(
        f"{head} {each['measure']} {each['serve']:.2%}, {each['this']:.2%}"
        for head, each in graph["measures"].items()
    )
    moved = " (moved too)" if graph["moved"] else ""
    return f"{graph['rows']:,}{moved} | {others} | {graph['margin']:.3f} | {measures}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help=f"{', '.join(QUICK)} if not given")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--docs", action="store_true", help=f"write it into {PAGE.name}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
