"""Photographs of two megapixels through the gateway: what resizing their bytes brings.

    python benchmarks/large_pictures.py [--rounds 10] [--seconds 4] [--connections 8]

One small model is exported twice: as it is published, and with a decoder that makes the whole
picture float32 before it is resized, as versions did at first (docs/decisions/0016). One embedded
model server has both, behind one gateway; they are asked for the same JPEG in turn, forwards and
backwards, for a machine is fast and slow by turns. A ratio is the median of the rounds, of each
round's pictures a second over the other's in that round.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import numpy as np
import psutil
from measuring import (
    Figures,
    cpu_s,
    free_port,
    in_a_process,
    running,
    until_answered,
    until_serving,
)
from PIL import Image
from report import machine

BYTES, FLOATS = "bytes", "floats"  # the models, by what is resized
SIZE, SHAPE = (1920, 1080), (96, 96, 3)  # of the picture; what the model takes
PICTURE, MODELS = "picture.jpg", "models"
HEADERS = {"Content-Type": "image/jpeg"}
WARM_UP_S = 2.0


def main() -> None:
    options = _options()
    if options.export:
        print(export(options.export))
        return
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        home = Path(directory)
        (home / PICTURE).write_bytes(photograph())
        # In a process of its own, for TensorFlow's threads would stay.
        command = [sys.executable, __file__, "--export", str(home)]
        exported = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        servers, gateway = _start(home, stack)
        kilobytes = (home / PICTURE).stat().st_size / 1e3
        rounds = _in_turn(home, servers, gateway, options)
    apart = float(exported.stdout.split()[-1])
    print(
        f"{date.today()}; {machine()}; a JPEG of {SIZE[0]}×{SIZE[1]}, {kilobytes:.0f} kB, for a "
        f"small CNN at {SHAPE[0]}×{SHAPE[1]}, {options.connections} connections, "
        f"{options.rounds} rounds of {options.seconds:g} s. The pixels of both are at most "
        f"{apart:g} of 255 apart.\n"
    )
    print("\n".join(_table(rounds)))


def photograph() -> bytes:
    """A JPEG file of soft shapes with a camera's grain."""
    random = np.random.default_rng(7)
    coarse = Image.fromarray(random.integers(0, 255, (68, 120, 3), np.uint8))
    grain = random.normal(0, 3, (SIZE[1], SIZE[0], 1))
    pixels = np.clip(np.asarray(coarse.resize(SIZE)) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def export(home: Path) -> float:
    """Write both models; how far their pixels of the picture are apart at most."""
    import tensorflow as tf

    import models
    from training import decoding
    from training.data.heads import Classes
    from training.publishing import saved_model

    of_bytes = decoding._resized

    def of_floats(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return of_bytes(tf.cast(image, tf.float32), size)

    model = models.build("cnn_functional", input_shape=SHAPE, classes=10)
    picture, seen = tf.constant((home / PICTURE).read_bytes()), []
    for name, resized in {BYTES: of_bytes, FLOATS: of_floats}.items():
        decoding._resized = resized
        version = home / MODELS / name / "1"
        version.mkdir(parents=True)
        saved_model.write(model, {"label": Classes(tuple("0123456789"))}, version)
        seen.append(decoding.decode_image(picture, SHAPE).numpy())
    return float(np.abs(seen[0] - seen[1]).max())


def _start(home: Path, stack: ExitStack) -> tuple[list[psutil.Process], str]:
    """The model server and the gateway, and the gateway's address."""
    grpc, http, log = free_port(), free_port(), home / "log"
    command = [sys.executable, "-m", "service.modelserver", f"--port={grpc}"]
    command += ["--grpc_max_threads=64", f"--model_repository={home / MODELS}"]
    twin = stack.enter_context(running(command, {}, log))
    until_serving(twin, f"127.0.0.1:{grpc}", [BYTES, FLOATS], log)
    settings = {
        "SLUICE_MODEL_SERVER": f"127.0.0.1:{grpc}",
        "SLUICE_HTTP_HOST": "127.0.0.1",
        "SLUICE_HTTP_PORT": str(http),
        "SLUICE_ADMIN_PORT": "0",
        "SLUICE_ACCESS_LOG": "off",
        "SLUICE_MAX_WAIT_S": "30",  # a refusal is no answer to be measured
    }
    command = [sys.executable, "-m", "service.cli", "gateway"]
    gateway = stack.enter_context(running(command, settings, log))
    address = f"http://127.0.0.1:{http}"
    for name in (BYTES, FLOATS):
        until_answered(gateway, _url(address, name), home / PICTURE, HEADERS, log)
    return [twin, gateway], address


def _url(address: str, model: str) -> str:
    return f"{address}/v1/models/{model}:predict"


def _in_turn(
    home: Path, servers: Sequence[psutil.Process], gateway: str, options: argparse.Namespace
) -> Mapping[str, list[Figures]]:
    """By model the figures of each round."""

    def measure(model: str, seconds: float) -> Figures:
        """`cpu_ms` is of both servers, for each picture."""
        before = cpu_s(servers)
        headers = [f"{name}: {value}" for name, value in HEADERS.items()]
        load = in_a_process(
            "http", _url(gateway, model), home / PICTURE, options.connections, seconds, *headers
        )
        if load["errors"]:
            raise SystemExit(f"{load['errors']:.0f} of {load['requests']:.0f} were refused")
        return load | {"cpu_ms": (cpu_s(servers) - before) / load["requests"] * 1e3}

    rounds: dict[str, list[Figures]] = {BYTES: [], FLOATS: []}
    for model in rounds:
        measure(model, WARM_UP_S)
    for number in range(options.rounds):
        for model in [*rounds] if number % 2 else [*rounds][::-1]:
            rounds[model].append(measure(model, options.seconds))
            print(f"{model}: {rounds[model][-1]['per_second']:.1f}/s", file=sys.stderr, flush=True)
    return rounds


def _table(rounds: Mapping[str, list[Figures]]) -> Iterator[str]:
    yield "| resized | pictures/s | of the other's | quartiles | p50 ms | CPU ms a picture |"
    yield "|---|---|---|---|---|---|"
    for model, other in ((BYTES, FLOATS), (FLOATS, BYTES)):
        ratios = [
            one["per_second"] / its["per_second"]
            for one, its in zip(rounds[model], rounds[other], strict=True)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rate, p50, cpu = (
            statistics.median(each[figure] for each in rounds[model])
            for figure in ("per_second", "p50_ms", "cpu_ms")
        )
        yield (
            f"| {model} | {rate:.1f} | {middle:.2f} | {low:.2f} to {high:.2f} | {p50:.1f} "
            f"| {cpu:.2f} |"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="2 at the least")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each model in a round")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
