"""Images a second of each graph of a version, by a model server: what gpu.sh runs.

    python benchmarks/gpu.py [--image tensorflow/serving:2.19.1-gpu] [--models resnet50,vgg16]
                             [--batches 1,8,32] [--seconds 3] [--clients 4]

A server is started for each graph, with and without XLA, and asked by so many clients at once for
batches of one size. Each model has random weights.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import keras
import numpy as np
from graphs import FAMILIES, learnt
from measuring import free_port, in_a_process, running, until_serving

import models
from sluice.wire.contract import BFLOAT16_TAG, GPU_TAG, SERVING_TAG
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import encode_tensor
from training.optimising.folding import fold
from training.optimising.lowering import lowered_layers
from training.optimising.pairs import find_pairs
from training.optimising.rewriting import Rewriting
from training.publishing import joining, saved_model

GRAPHS = (SERVING_TAG, f"{SERVING_TAG},{BFLOAT16_TAG}", f"{SERVING_TAG},{GPU_TAG}")
XLA = "--xla_gpu_compilation_enabled"


def main() -> None:
    options = _options()
    print(f"{date.today()}, {options.image or 'the twin'}, {options.clients} clients at once\n")
    print(f"| model | graph | XLA | {' | '.join(f'at {size}' for size in options.batches)} |")
    print("|---|---|---|" + "---|" * len(options.batches))
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder, name, "1")
            write_version(models.build(name, **FAMILIES[name]), version)
            for row in _rows(name, version, options):
                print(row, flush=True)


def write_version(model: keras.Model, version: Path) -> None:
    """Every graph, as a published version has them."""
    folded = [fold(pair) for pair in find_pairs(learnt(model))]
    lowered = lowered_layers(model)
    saved_model.write(model, {}, version, {}, rewriting=Rewriting(model, folded))
    for tag, precision in ((BFLOAT16_TAG, "bfloat16"), (GPU_TAG, "float16")):
        rewriting = Rewriting(model, folded, lowered, precision)
        other = version.parent / tag
        saved_model.write(model, {}, other, {}, rewriting=rewriting, weights=f"{tag}_weights")
        joining.join(version, other, (SERVING_TAG, tag))


def _rows(name: str, version: Path, options: argparse.Namespace) -> Iterator[str]:
    for tags in GRAPHS:
        for flags in ([], [XLA]) if options.image else ([],):
            speeds = _speeds(name, version, [f"--saved_model_tags={tags}", *flags], options)
            cells = " | ".join(f"{speed:,.0f}" for speed in speeds)
            yield f"| `{name}` | `{tags}` | {'yes' if flags else 'no'} | {cells} |"


def _speeds(
    name: str, version: Path, flags: Sequence[str], options: argparse.Namespace
) -> list[float]:
    port, log = free_port(), version.parent / "log"
    address = f"127.0.0.1:{port}"
    with running(_command(name, version.parent, port, flags, options.image), {}, log) as process:
        until_serving(process, address, [name], log)
        return [_speed(name, version.parent, address, batch, options) for batch in options.batches]


def _command(
    name: str, directory: Path, port: int, flags: Sequence[str], image: str | None
) -> list[str]:
    every = [f"--port={port}", f"--model_name={name}", *flags]
    if image is None:
        return [
            sys.executable,
            "-m",
            "service.modelserver",
            f"--model_base_path={directory}",
            *every,
        ]
    docker = ["docker", "run", "--rm", "--init", "--gpus=all", "--network=host"]
    docker += [f"--volume={directory}:/models/{name}:ro", "--entrypoint=tensorflow_model_server"]
    return [*docker, image, f"--model_base_path=/models/{name}", *every]


def _speed(
    name: str, directory: Path, address: str, batch: int, options: argparse.Namespace
) -> float:
    shape = (batch, *FAMILIES[name]["input_shape"])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    request = PredictRequest(inputs={"image": encode_tensor(images, content=True)})
    request.model_spec.name = name
    file = directory / "request"
    file.write_bytes(request.SerializeToString())
    figures = in_a_process("grpc", address, file, options.clients, options.seconds)
    return batch * figures["per_second"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", help="TensorFlow Serving's; the twin answers if not given")
    parser.add_argument(
        "--models", type=lambda text: text.split(","), default=["resnet50", "vgg16"]
    )
    parser.add_argument(
        "--batches",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[1, 8, 32],
    )
    parser.add_argument("--seconds", type=float, default=3, help="of each batch size")
    parser.add_argument("--clients", type=int, default=4, help="that ask at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
