"""What half precision does to trained models: the table of thresholds in docs/graphs.md.

    python benchmarks/thresholds.py [RECIPE ...]
    python benchmarks/thresholds.py --docs

Each recipe is trained and published with every graph, whatever they answer, and its metrics.json
read: how many rows get another class, how far ahead the first graph's was there, and the measures.
A recipe's rows are printed and kept in a file of its own, .work/bench/thresholds/RECIPE.md: several
of these can run at once, each with some of the recipes, and one that is ended loses nothing but the
recipe that it was at. --docs trains nothing: it puts the files' rows into the page, in which those
of all other recipes stay.
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

from measuring import HERE, kind_of_cpu, read_docs, write_docs

import training
from training.recipes import RECIPES

PAGE, BLOCK = "graphs.md", "thresholds"
ROWS = HERE.parent / ".work" / "bench" / "thresholds"
NO_LIMITS = {"optimize": "bf16,gpu", "optimize_drop": 100, "optimize_margin": 1}
# What a core or two train in minutes, and where normalisations have seen enough to answer better
# than chance; of those that are not here, as they are.
LESS = {
    "mlp": {"epochs": 3},
    "cnn_sequential": {"epochs": 2, "limit": 20000},
    "cnn_functional": {"epochs": 2, "limit": 20000},
    "fashion": {"epochs": 3, "limit": 20000},
    "multi_head": {"epochs": 2, "limit": 20000},
    "two_view": {"epochs": 3},
    "unet": {"epochs": 2, "limit": 10000},
    "gan": {"epochs": 2, "limit": 10000},
    "resnet_small": {"epochs": 6, "limit": 20000},
    "vit_small": {"epochs": 4, "limit": 10000},
    "vgg16": {"width": 8, "units": 64, "image_size": 32, "epochs": 3, "limit": 6000},
    "vgg19": {"width": 8, "units": 64, "image_size": 32, "epochs": 3, "limit": 6000},
    "resnet50": {"width": 8, "image_size": 32, "epochs": 4, "limit": 20000},
    "resnet101": {"width": 8, "image_size": 32, "epochs": 4, "limit": 20000},
    "resnet152": {"width": 8, "image_size": 32, "epochs": 4, "limit": 20000},
    "inception_v3": {"width": 0.2, "image_size": 75, "epochs": 5, "limit": 10000},
    "vit_b16": {"depth": 2, "image_size": 48, "epochs": 3, "limit": 2000},
}


def main() -> None:
    options = _options()
    if options.docs:
        write_docs(PAGE, BLOCK, "\n".join(_table(_known())))
        return
    ROWS.mkdir(parents=True, exist_ok=True)
    for name in options.recipes or RECIPES:
        rows = "\n".join(_rows(name))
        print(rows, flush=True)
        _file(name).write_text(f"{rows}\n")


def _table(rows: Sequence[str]) -> Iterator[str]:
    studied = {row.split("`")[1] for row in rows}
    yield (
        f"{len(studied)} of {len(RECIPES)} recipes; beside a name stand the settings that are not "
        f"the recipe's own."
    )
    yield ""
    yield (
        "| recipe | graph | rows | another class | lead there, at most | measure: `serve`, this "
        "| measured |"
    )
    yield "|---|---|---|---|---|---|---|"
    yield from rows


def _known() -> list[str]:
    """In the recipes' order, the rows of each: those of its file, or else the page's."""
    page = read_docs(PAGE, BLOCK)
    return [
        row
        for name in RECIPES
        for row in (_file(name).read_text() if _file(name).exists() else page).splitlines()
        if row.startswith(f"| `{name}`")
    ]


def _file(recipe: str) -> Path:
    return ROWS / f"{recipe}.md"


def _rows(name: str) -> Iterator[str]:
    settings = LESS.get(name, {})
    with tempfile.TemporaryDirectory() as repository:
        version = training.train(name, model_repository=repository, settings=NO_LIMITS | settings)
        graphs = json.loads((version / "metrics.json").read_text())["graphs"]
    named = " ".join([f"`{name}`", *(f"{key}={value}" for key, value in settings.items())])
    for tags, graph in graphs.items():
        if tags != "serve":
            yield f"| {named} | `{tags}` | {_row(graph)} | {date.today()}, {kind_of_cpu()} |"


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
    parser.add_argument("recipes", nargs="*", help="to train; all if not given")
    parser.add_argument("--docs", action="store_true", help=f"write what there is into {PAGE}")
    options = parser.parse_args()
    if options.docs and options.recipes:
        parser.error("--docs trains nothing: train first, then write with --docs alone")
    return options


if __name__ == "__main__":
    main()
