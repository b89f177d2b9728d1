"""What each graph of a version costs beside the unfolded one: the table of docs/graphs.md.

    python benchmarks/graphs.py [--rounds 5] [--seconds 1] [--batches 1,8,16,32]
                                [--models NAMES] [--no-bfloat16] [--constants] [--starts 3]
                                [--docs]

Each model has random weights and the statistics of a normalisation that learnt something. Its
graphs are written as a version has them, loaded as the twin loads them, and asked in turn. A second
table says what it takes to load each, alone and as one of both in a version: in a process of its
own, from the disk's cache to the first answer to one image.

Where the CPU has no instructions for bfloat16 that graph is left out: it is emulated there, and
nobody is served by it. The page has a table for each kind of CPU, of which --docs writes this
machine's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import psutil
from measuring import kind_of_cpu, read_docs, write_docs
from report import machine
from tensorflow.core.protobuf.config_pb2 import ConfigProto

import models
from service.modelserver.servable import Run, Servable, load_servable
from sluice.wire.contract import BFLOAT16_TAG, DEFAULT_SIGNATURE, SERVING_TAG
from sluice.wire.processor import computes_bfloat16
from training.optimising.folding import fold
from training.optimising.lowering import lowered_layers
from training.optimising.pairs import find_pairs
from training.optimising.rewriting import Rewriting
from training.publishing import joining, saved_model

# Of the depths that people use.
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet50": {"input_shape": (224, 224, 3), "classes": 1000},
    "resnet101": {"input_shape": (224, 224, 3), "classes": 1000},
    "inception_v3": {"input_shape": (299, 299, 3), "classes": 1000},
    "vgg16": {"input_shape": (96, 96, 3), "classes": 10, "units": 256},
    "unet": {"input_shape": (128, 128, 1), "classes": 2, "width": 32},
    "cnn_functional": {"input_shape": (28, 28, 1), "classes": 10},
}
UNFOLDED, FOLDED, BFLOAT16 = "unfolded", "`serve`", "`serve,bf16`"
CONSTANTS = f"{BFLOAT16}, constants"
PAGE = "graphs.md"

Cost = tuple[float, float]  # ms of CPU an image, and of the clock a call
Start = dict[str, float]  # seconds to load, seconds of the first call, MB of memory


def main() -> None:
    options = _options()
    if options.start:
        print(json.dumps(_started(*options.start)))
        return
    block = f"make bench-graphs, {kind_of_cpu()}"
    if options.docs:
        read_docs(PAGE, block)  # that there is no place for it is said now, not after an hour
    lines = []
    for line in _tables(options):
        print(line, flush=True)
        lines.append(line)
    if options.docs:
        write_docs(PAGE, block, "\n".join(lines))


def _tables(options: argparse.Namespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        written: dict[str, dict[str, Path]] = {}
        for name in options.models:
            model = learnt(models.build(name, **FAMILIES[name]))
            written[name] = _written(model, Path(folder, name), options)
        yield from _table(written, options)
        if options.starts:
            yield ""
            yield from _start_table(written, options)


def _table(written: Mapping[str, Mapping[str, Path]], options: argparse.Namespace) -> Iterator[str]:
    yield (
        f"{date.today()}; {machine()}, {kind_of_cpu()}, no GPU; TensorFlow in one process, random "
        f"weights, medians of {options.rounds} rounds of {options.seconds:g} s in turn. Ratios: "
        f"the unfolded graph's cost over this one's."
    )
    yield ""
    yield "| model | graph | MB | batch | CPU ms an image | ratio | p50 ms a call | ratio |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, graphs in written.items():
        yield from _rows(name, graphs, options)


def _rows(name: str, graphs: Mapping[str, Path], options: argparse.Namespace) -> Iterator[str]:
    loaded = {graph: _loaded(path) for graph, path in graphs.items()}
    megabytes = {graph: _megabytes(path) for graph, path in graphs.items()}
    for batch in options.batches:
        costs = _in_turn(loaded, FAMILIES[name]["input_shape"], batch, options)
        cpu, wall = costs[UNFOLDED]
        for graph, (its_cpu, its_wall) in costs.items():
            yield (
                f"| `{name}` | {graph} | {megabytes[graph]:.1f} | {batch} | {its_cpu:.2f} "
                f"| {cpu / its_cpu:.2f} | {its_wall:.2f} | {wall / its_wall:.2f} |"
            )
    for servable in loaded.values():
        servable.close()


def _written(model: keras.Model, folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    folded = [fold(pair) for pair in find_pairs(model)]
    graphs = {UNFOLDED: Rewriting(model), FOLDED: Rewriting(model, folded)}
    if options.bfloat16:
        graphs[BFLOAT16] = Rewriting(model, folded, lowered_layers(model))
    if options.constants:
        graphs[CONSTANTS] = Rewriting(model, folded, lowered_layers(model), constants=True)
    for number, rewriting in enumerate(graphs.values()):
        weights = f"weights{number}"  # so that two of them can be joined
        saved_model.write(model, {}, folder / str(number), {}, rewriting=rewriting, weights=weights)
    return {graph: folder / str(number) for number, graph in enumerate(graphs)}


def _loaded(path: Path, tags: str = SERVING_TAG) -> Servable:
    return load_servable(path, tags.split(","), ConfigProto())


def _start_table(
    written: Mapping[str, Mapping[str, Path]], options: argparse.Namespace
) -> Iterator[str]:
    yield "| model | version with | graph | MB on disk | load s | first call s | MB of memory |"
    yield "|---|---|---|---|---|---|---|"
    for name, graphs in written.items():
        starts = [(graph, graph, path, SERVING_TAG) for graph, path in graphs.items()]
        if BFLOAT16 in graphs:
            both, tags = _joined(graphs), f"{SERVING_TAG},{BFLOAT16_TAG}"
            starts += [("both", FOLDED, both, SERVING_TAG), ("both", BFLOAT16, both, tags)]
        rounds = [
            [_start(name, path, tags) for _, _, path, tags in starts] for _ in range(options.starts)
        ]
        for (whole, graph, path, _), found in zip(starts, zip(*rounds, strict=True), strict=True):
            load, call, memory = (
                statistics.median(each[key] for each in found) for key in found[0]
            )
            yield (
                f"| `{name}` | {whole} | {graph} | {_megabytes(path):.1f} | {load:.2f} "
                f"| {call:.2f} | {memory:,.0f} |"
            )


def _joined(graphs: Mapping[str, Path]) -> Path:
    """A version with both, beside those with one."""
    folder = graphs[FOLDED].parent
    both = shutil.copytree(graphs[FOLDED], folder / "both")
    second = shutil.copytree(graphs[BFLOAT16], folder / "second")
    joining.join(both, second, (SERVING_TAG, BFLOAT16_TAG))
    return both


def _start(name: str, path: Path, tags: str) -> Start:
    command = [sys.executable, __file__, "--start", name, str(path), tags]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    start: Start = json.loads(done.stdout)
    return start


def _started(name: str, path: str, tags: str) -> Start:
    """In a process of its own."""
    process, began = psutil.Process(), time.perf_counter()
    before = process.memory_info().rss
    servable = _loaded(Path(path), tags)
    loaded = time.perf_counter()
    images = np.zeros((1, *FAMILIES[name]["input_shape"]), np.float32)
    servable.run(_asked(servable, images))
    called = time.perf_counter()
    memory = process.memory_info().rss - before
    return {"load_s": loaded - began, "call_s": called - loaded, "mb": memory / 1e6}


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
    wanted = _asked(servable, images)
    walls: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    while len(walls) < 2 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        servable.run(wanted)
        walls.append(time.perf_counter() - before)
    cpu_ms = (time.process_time() - cpu) * 1e3 / (len(walls) * len(images))
    return cpu_ms, statistics.median(walls) * 1e3


def _asked(servable: Servable, images: np.ndarray) -> Run:
    signature = servable.signatures[DEFAULT_SIGNATURE]
    [given] = signature.inputs.values()
    return Run({given.name: images}, tuple(info.name for info in signature.outputs.values()))


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
    parser.add_argument("--starts", type=int, default=3, help="of each graph, in turn; 0: none")
    parser.add_argument(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        default=computes_bfloat16(),
        help=f"measure {BFLOAT16}; if not said, where the CPU has instructions for it",
    )
    parser.add_argument(
        "--constants", action="store_true", help="measure it with its weights as constants too"
    )
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--docs", action="store_true", help=f"write them into {PAGE}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
