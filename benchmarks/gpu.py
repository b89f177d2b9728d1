"""Images a second of each graph of a version on a GPU: what gpu.sh runs.

    python benchmarks/gpu.py [--image tensorflow/serving:2.19.1-gpu] [--models resnet50,vgg16]
                             [--batches 1,8,32] [--seconds 3] [--clients 4]

Each model has random weights. First each graph is run without a server, and then by one, with and
without XLA, that so many clients at once ask for batches of one size; in float32 and in uint8.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from graphs import FAMILIES, learnt
from measuring import free_port, in_a_process, running, until_serving

import models
from sluice.wire.contract import (
    BFLOAT16_TAG,
    DEFAULT_SIGNATURE,
    GPU_TAG,
    PIXELS_SIGNATURE,
    SERVING_TAG,
)
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import encode_tensor
from training.optimising.folding import fold
from training.optimising.lowering import lowered_layers
from training.optimising.pairs import find_pairs
from training.optimising.rewriting import Rewriting
from training.publishing import joining, saved_model

GRAPHS = (SERVING_TAG, f"{SERVING_TAG},{BFLOAT16_TAG}", f"{SERVING_TAG},{GPU_TAG}")
TAKEN = {DEFAULT_SIGNATURE: np.float32, PIXELS_SIGNATURE: np.uint8}
XLA = "--xla_gpu_compilation_enabled"
XLA_OF_A_SESSION = "graph_options { optimizer_options { global_jit_level: ON_2 } }"
WARM_UP_S = 0.5


def main() -> None:
    options = _options()
    # The GPU is for those who are measured: TensorFlow would take all of its memory here.
    tf.config.set_visible_devices([], "GPU")
    server = options.image or f"the twin, TensorFlow {tf.__version__}"
    print(f"{date.today()}, {server}, {options.clients} clients at once\n")
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder, name, "1")
            write_version(models.build(name, **FAMILIES[name]), version)
            for line in chain(_alone(name, version, options), _served(name, version, options)):
                print(line, flush=True)


def write_version(model: keras.Model, version: Path) -> None:
    """Every graph, as a published version has them."""
    folded = [fold(pair) for pair in find_pairs(learnt(model))]
    lowered = lowered_layers(model)
    saved_model.write(model, {}, version, rewriting=Rewriting(model, folded))
    for tag, precision in ((BFLOAT16_TAG, "bfloat16"), (GPU_TAG, "float16")):
        rewriting = Rewriting(model, folded, lowered, precision)
        other = version.parent / tag
        saved_model.write(model, {}, other, rewriting=rewriting, weights=f"{tag}_weights")
        joining.join(version, other, (SERVING_TAG, tag))


def _served(name: str, version: Path, options: argparse.Namespace) -> Iterator[str]:
    sizes = " | ".join(f"at {size}" for size in options.batches)
    yield f"\n| model | graph | XLA | asked in | {sizes} |"
    yield "|---|---|---|---|" + "---|" * len(options.batches)
    for tags in GRAPHS:
        for xla in (False, True):
            port, log = free_port(), version.parent / "log"
            address = f"127.0.0.1:{port}"
            command = _command(name, version.parent, port, tags, xla, options.image)
            with running(command, {}, log) as process:
                until_serving(process, address, [name], log)
                for signature, dtype in TAKEN.items():
                    speeds = [
                        _speed(name, version.parent, address, signature, batch, options)
                        for batch in options.batches
                    ]
                    yield _row(name, tags, xla, dtype.__name__, speeds)


def _command(
    name: str, directory: Path, port: int, tags: str, xla: bool, image: str | None
) -> list[str]:
    every = [f"--port={port}", f"--model_name={name}", f"--saved_model_tags={tags}"]
    if image is None:
        command = [sys.executable, "-m", "service.modelserver", f"--model_base_path={directory}"]
        if xla:
            file = directory / "xla.pbtxt"
            file.write_text(XLA_OF_A_SESSION)
            command.append(f"--tensorflow_session_config_file={file}")
        return [*command, *every]
    docker = ["docker", "run", "--rm", "--init", "--gpus=all", "--network=host"]
    docker += [f"--volume={directory}:/models/{name}:ro", "--entrypoint=tensorflow_model_server"]
    return [*docker, image, f"--model_base_path=/models/{name}", *every, *([XLA] if xla else [])]


def _speed(
    name: str,
    directory: Path,
    address: str,
    signature: str,
    batch: int,
    options: argparse.Namespace,
) -> float:
    shape = (batch, *FAMILIES[name]["input_shape"])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype(TAKEN[signature])
    request = PredictRequest(inputs={"image": encode_tensor(images, content=True)})
    request.model_spec.name, request.model_spec.signature_name = name, signature
    file = directory / "request"
    file.write_bytes(request.SerializeToString())
    # The first ones wait for kernels that are chosen and compiled for this size.
    in_a_process("grpc", address, file, options.clients, WARM_UP_S)
    figures = in_a_process("grpc", address, file, options.clients, options.seconds)
    return batch * figures["per_second"]


def _alone(name: str, version: Path, options: argparse.Namespace) -> Iterator[str]:
    sizes = " | ".join(f"at {size}" for size in options.batches)
    yield f"\n| model | graph, no server | XLA | asked in | {sizes} |"
    yield "|---|---|---|---|" + "---|" * len(options.batches)
    script, batches = Path(__file__).with_name("gpu_graph.py"), ",".join(map(str, options.batches))
    for tags in GRAPHS:
        for signature, dtype in TAKEN.items():
            asked = (version, tags, signature, options.clients, options.seconds, batches)
            command = [sys.executable, str(script), *map(str, asked)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            speeds = json.loads(done.stdout)
            yield _row(name, tags, False, dtype.__name__, [*speeds.values()])


def _row(name: str, tags: str, xla: bool, kind: str, speeds: Sequence[float]) -> str:
    cells = " | ".join(f"{speed:,.0f}" for speed in speeds)
    return f"| `{name}` | `{tags}` | {'yes' if xla else 'no'} | {kind} | {cells} |"


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
