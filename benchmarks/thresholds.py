"""What half precision does to trained models: the table of thresholds in docs/graphs.md.

    python benchmarks/thresholds.py [RECIPE ...] [--rows FILE ...] [--docs]

Each recipe is trained and published with every graph, whatever they answer, and its metrics.json
read: how many rows get another class, how far ahead the first graph's was there, and the measures.
Several of these at once, each with some of the recipes, print rows that --rows then reads in place
of training.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from measuring import write_docs

import training
from training.recipes import RECIPES

PAGE = "graphs.md"
NO_LIMITS = {"optimize": "bf16,gpu", "optimize_drop": 100, "optimize_margin": 1}
# What a core or two train in a minute or two; of those that are not here, as they are.
LESS = {
    "mlp": {"epochs": 3},
    "cnn_sequential": {"epochs": 2, "limit": 20000},
    "cnn_functional": {"epochs": 2, "limit": 20000},
    "fashion": {"epochs": 3, "limit": 20000},
    "multi_head": {"epochs": 2, "limit": 20000},
    "two_view": {"epochs": 3},
    "unet": {"epochs": 2, "limit": 10000},
    "gan": {"epochs": 2, "limit": 10000},
    "resnet_small": {"epochs": 4, "limit": 10000},
    "vit_small": {"epochs": 4, "limit": 10000},
    "vgg16": {"width": 8, "units": 64, "image_size": 32, "epochs": 3, "limit": 6000},
    "vgg19": {"width": 8, "units": 64, "image_size": 32, "epochs": 3, "limit": 6000},
    "resnet50": {"width": 8, "image_size": 32, "epochs": 3, "limit": 4000},
    "resnet101": {"width": 8, "image_size": 32, "epochs": 3, "limit": 2000},
    "resnet152": {"width": 8, "image_size": 32, "epochs": 3, "limit": 2000},
    "inception_v3": {"width": 0.2, "image_size": 75, "epochs": 3, "limit": 2000},
    "vit_b16": {"depth": 2, "image_size": 48, "epochs": 3, "limit": 2000},
}


def main() -> None:
    options = _options()
    rows = _read(options.rows) if options.rows else _measured(options.recipes or [*RECIPES])
    text = "\n".join([*_head(), *rows])
    if options.rows:
        print(text)
    if options.docs:
        write_docs(PAGE, "thresholds", text)


def _head() -> Iterator[str]:
    yield f"{date.today()}, trained and published on CPUs; settings that are not the recipe's own:"
    yield ", ".join(f"`{name}` {_said(LESS[name])}" for name in RECIPES if name in LESS) + "."
    yield ""
    yield "| recipe | graph | rows | another class | lead there, at most | measure: `serve`, this |"
    yield "|---|---|---|---|---|---|"


def _said(settings: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _measured(recipes: Sequence[str]) -> list[str]:
    """Printed one by one, as some take minutes."""
    rows = []
    for name in recipes:
        for row in _rows(name):
            print(row, flush=True)
            rows.append(row)
    return rows


def _rows(name: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as repository:
        version = training.train(
            name, model_repository=repository, settings=NO_LIMITS | LESS.get(name, {})
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


def _read(files: Sequence[Path]) -> list[str]:
    """In the recipes' order."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [line for name in RECIPES for line in lines if line.startswith(f"| `{name}` |")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="all if not given")
    parser.add_argument("--rows", nargs="*", type=Path, help="files with rows of such a table")
    parser.add_argument("--docs", action="store_true", help=f"write it into {PAGE}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
