"""What each graph of a version costs beside the unfolded one: the table of docs/graphs.md.

    python benchmarks/graphs.py [--rounds 5] [--seconds 1] [--batches 1,8,16,32] [--docs]

Each model has random weights and the statistics of a normalisation that learnt something. Its
graphs are written as a version has them, loaded as the twin loads them, and asked in turn.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from tensorflow.core.protobuf.config_pb2 import ConfigProto

import models
from service.modelserver.servable import Run, Servable, load_servable
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.processor import computes_bfloat16
from training.optimising.folding import fold
from training.optimising.lowering import lowered_layers
from training.optimising.pairs import find_pairs
from training.optimising.rewriting import Rewriting
from training.publishing import saved_model

# Of the depths that people use.
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet50": {"input_shape": (224, 224, 3), "classes": 1000},
    "inception_v3": {"input_shape": (299, 299, 3), "classes": 1000},
    "vgg16": {"input_shape": (96, 96, 3), "classes": 10, "units": 256},
    "cnn_functional": {"input_shape": (28, 28, 1), "classes": 10},
}
UNFOLDED, FOLDED, BFLOAT16 = "unfolded", "`serve`", "`serve,bf16`"
BEGIN, END = "<!-- make bench-graphs: begin -->", "<!-- make bench-graphs: end -->"
PAGE = Path(__file__).parent.parent / "docs" / "graphs.md"

Cost = tuple[float, float]  # ms of CPU an image, and of the clock a call


def main() -> None:
    options = _options()
    lines = "\n".join(_table(options))
    print(lines)
    if options.docs:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.split(END)[1]}")


def _table(options: argparse.Namespace) -> Iterator[str]:
    can = "with" if computes_bfloat16() else "without"
    yield (
        f"{date.today()}, {os.cpu_count()} CPUs of a shared virtual machine {can} bfloat16 "
        f"instructions, no GPU; TensorFlow in one process, random weights, medians of "
        f"{options.rounds} rounds of {options.seconds:g} s in turn. Ratios: the unfolded graph's "
        f"cost over this one's."
    )
    yield ""
    yield "| model | graph | MB | batch | CPU ms an image | ratio | p50 ms a call | ratio |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in options.models:
        yield from _rows(name, options)


def _rows(name: str, options: argparse.Namespace) -> Iterator[str]:
    size = FAMILIES[name]
    model = learnt(models.build(name, **size))
    with tempfile.TemporaryDirectory() as folder:
        graphs = _written(model, Path(folder))
        loaded = {graph: _loaded(path) for graph, path in graphs.items()}
        megabytes = {graph: _megabytes(path) for graph, path in graphs.items()}
        for batch in options.batches:
            costs = _in_turn(loaded, size["input_shape"], batch, options)
            cpu, wall = costs[UNFOLDED]
            for graph, (its_cpu, its_wall) in costs.items():
                yield (
                    f"| `{name}` | {graph} | {megabytes[graph]:.1f} | {batch} | {its_cpu:.2f} "
                    f"| {cpu / its_cpu:.2f} | {its_wall:.2f} | {wall / its_wall:.2f} |"
                )
        for servable in loaded.values():
            servable.close()


def _written(model: keras.Model, folder: Path) -> dict[str, Path]:
    folded = [fold(pair) for pair in find_pairs(model)]
    graphs = {
        UNFOLDED: Rewriting(model),
        FOLDED: Rewriting(model, folded),
        BFLOAT16: Rewriting(model, folded, lowered_layers(model)),
    }
    for number, rewriting in enumerate(graphs.values()):
        saved_model.write(model, {}, folder / str(number), {}, rewriting=rewriting)
    return {graph: folder / str(number) for number, graph in enumerate(graphs)}


def _loaded(path: Path) -> Servable:
    return load_servable(path, ["serve"], ConfigProto())


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def _in_turn(
    loaded: Mapping[str, Servable], shape: tuple[int, ...], batch: int, options: argparse.Namespace
) -> dict[str, Cost]:
    """The median of the rounds, of each graph."""
    images = np.random.default_rng(0).uniform(0, 255, (batch, *shape)).astype(np.float32)
    rounds: dict[str, list[Cost]] = {graph: [] for graph in loaded}
    for number in range(options.rounds + 1):  # the first one warms up
        for graph, servable in loaded.items():
            cost = _cost(servable, images, options.seconds if number else 0)
            if number:
                rounds[graph].append(cost)
    return {
        graph: (statistics.median(c for c, _ in costs), statistics.median(w for _, w in costs))
        for graph, costs in rounds.items()
    }


def _cost(servable: Servable, images: np.ndarray, seconds: float) -> Cost:
    signature = servable.signatures[DEFAULT_SIGNATURE]
    [given] = signature.inputs.values()
    wanted = Run({given.name: images}, tuple(info.name for info in signature.outputs.values()))
    walls: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    while len(walls) < 2 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        servable.run(wanted)
        walls.append(time.perf_counter() - before)
    cpu_ms = (time.process_time() - cpu) * 1e3 / (len(walls) * len(images))
    return cpu_ms, statistics.median(walls) * 1e3


def learnt(model: keras.Model) -> keras.Model:
    """The model, its normalisations with what they could have learnt."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif variable.name in ("beta", "moving_mean"):
            variable.assign(rng.normal(scale=0.1, size=variable.shape))
    return model


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of all graphs, in turn")
    parser.add_argument("--seconds", type=float, default=1, help="of each graph in a round")
    parser.add_argument(
        "--batches",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[1, 8, 16, 32],
    )
    parser.add_argument("--models", type=lambda text: text.split(","), default=[*FAMILIES])
    parser.add_argument("--docs", action="store_true", help=f"write them into {PAGE.name}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
