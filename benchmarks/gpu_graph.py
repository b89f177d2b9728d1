"""One graph of a version without a server: images a second, as the twin runs it; in a process of
its own, which gives the GPU's memory back when it ends.

    python benchmarks/gpu_graph.py SAVED_MODEL TAGS SIGNATURE CLIENTS SECONDS ROWS[,ROWS...]

So many threads ask at once. Each call sends its images to the GPU and fetches the answers. Prints
JSON: by the number of rows, images a second.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from service.modelserver.build import session_config
from service.modelserver.options import Options
from service.modelserver.servable import Run, Servable, load_servable

_WARM_UPS = 3  # kernels are chosen, and memory is taken


def asked(servable: Servable, signature: str, rows: int) -> Run:
    """Random images for a signature with one input."""
    definition = servable.signatures[signature]
    [given] = definition.inputs.values()
    shape = (rows, *(dim.size for dim in given.tensor_shape.dim[1:]))
    images = np.random.default_rng(0).uniform(0, 255, shape)
    images = images.astype(tf.as_dtype(given.dtype).as_numpy_dtype)
    return Run({given.name: images}, tuple(info.name for info in definition.outputs.values()))


def per_second(servable: Servable, run: Run, clients: int, seconds: float) -> float:
    """Calls a second, of all clients together."""
    for _ in range(_WARM_UPS):
        servable.run(run)
    started = time.perf_counter()

    def keep_asking(_: int) -> int:
        calls = 0
        while time.perf_counter() - started < seconds:
            servable.run(run)
            calls += 1
        return calls

    with ThreadPoolExecutor(clients) as threads:
        calls = sum(threads.map(keep_asking, range(clients)))
    return calls / (time.perf_counter() - started)


def main(
    saved_model: str, tags: str, signature: str, clients: str, seconds: str, batches: str
) -> None:
    servable = load_servable(Path(saved_model), tags.split(","), session_config(Options()))
    speeds = {}
    for rows in map(int, batches.split(",")):
        run = asked(servable, signature, rows)
        speeds[rows] = rows * per_second(servable, run, int(clients), float(seconds))
    print(json.dumps(speeds))


if __name__ == "__main__":
    main(*sys.argv[1:])
