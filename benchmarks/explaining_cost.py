"""predict and explain of each family, one picture, in turn through one loaded SavedModel."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import models
from training.data.heads import Classes
from training.publishing import saved_model

# Small enough for two cores, of the depths that people use.
FAMILIES: dict[str, dict[str, Any]] = {
    "mlp": {"input_shape": (28, 28, 1)},
    "cnn_functional": {"input_shape": (28, 28, 1)},
    "vgg16": {"input_shape": (96, 96, 3), "units": 256},
    "resnet50": {"input_shape": (96, 96, 3)},
    "inception_v3": {"input_shape": (160, 160, 3)},
    "vit_b16": {"input_shape": (96, 96, 3), "depth": 4},
}
_WARM_UP = 3


def section(options: argparse.Namespace) -> Iterator[str]:
    yield "One picture through a loaded SavedModel, `serving_default` and `explain` in turn:"
    yield ""
    yield "| family | picture | looks at | predict p50 ms | explain p50 ms | times |"
    yield "|---|---|---|---|---|---|"
    for name, size in FAMILIES.items():
        yield _row(name, size, options.rounds)


def _row(name: str, size: dict[str, Any], rounds: int) -> str:
    model = models.build(name, classes=10, **size)
    shape = size["input_shape"]
    with tempfile.TemporaryDirectory() as directory:
        graphs = saved_model.write(model, {"label": Classes(tuple("0123456789"))}, Path(directory))
        with saved_model.Session(Path(directory)) as session:
            predict, explain = _in_turn(session, shape, rounds)
    assert graphs.explainer
    layer = graphs.explainer.looked_at["label"]["image"] or "the pixels"
    return (
        f"| `{name}` | {'×'.join(map(str, shape))} | {layer} | {predict:.2f} | {explain:.2f} "
        f"| {explain / predict:.2f} |"
    )


def _in_turn(
    session: saved_model.Session, shape: tuple[int, ...], rounds: int
) -> tuple[float, float]:
    """The medians, in ms."""
    image = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)
    asked = {
        "serving_default": {"image": image},
        "explain": {"image": image, "class": np.array([-1], np.int32)},
    }
    taken: dict[str, list[float]] = {signature: [] for signature in asked}
    for _ in range(_WARM_UP + rounds):
        for signature, inputs in asked.items():
            start = time.perf_counter()
            session.run(signature, inputs)
            taken[signature].append((time.perf_counter() - start) * 1000)
    predict, explain = (statistics.median(each[_WARM_UP:]) for each in taken.values())
    return predict, explain
