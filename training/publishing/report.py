"""What is published beside a model for people: metrics.json, pictures, architecture, card."""

import dataclasses
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import models
from sluice.wire.contract import METRICS_FILE
from training.data.dataset import Dataset
from training.fitting.checkpoint import Progress
from training.publishing import gallery, model_card
from training.publishing.checks import described
from training.publishing.evaluate import Evaluation
from training.recipes import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """What a run was asked, how it went and what came of it."""

    recipe: Recipe
    progress: Progress
    evaluation: Evaluation


def write(
    directory: Path,
    model: keras.Model,
    dataset: Dataset,
    run: TrainingRun,
    signatures: Mapping[str, Any],
) -> None:
    facts = _gather(model, dataset, run, signatures)
    (directory / METRICS_FILE).write_text(json.dumps(facts, indent=2) + "\n")
    (directory / "architecture.txt").write_text(architecture(model))
    gallery.draw(directory, model, dataset, run.progress.curves, run.evaluation)
    (directory / "model-card.md").write_text(model_card.render(facts, directory))


def _gather(
    model: keras.Model, dataset: Dataset, run: TrainingRun, signatures: Mapping[str, Any]
) -> dict[str, Any]:
    """metrics.json (docs/contract.md lists its keys)."""
    return {
        "accuracy": run.evaluation.accuracy,
        "heads": dict(run.evaluation.metrics),
        "labels": {name: list(head.labels) for name, head in dataset.heads.items()},
        "recipe": dataclasses.asdict(run.recipe),
        "parameters": model.count_params(),
        "data": dataset.origin,
        "examples": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "signatures": {
            name: described_signature(definition) for name, definition in signatures.items()
        },
        "curves": run.progress.curves,
        "seconds": round(run.progress.seconds, 2),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }


def described_signature(definition: Any) -> dict[str, dict[str, str]]:
    """Inputs and outputs of a SignatureDef, by name: dtype and shape.

    >>> from tensorflow.core.protobuf import meta_graph_pb2
    >>> described_signature(meta_graph_pb2.SignatureDef())
    {'inputs': {}, 'outputs': {}}
    """
    return {
        side: {name: described(info) for name, info in sorted(getattr(definition, side).items())}
        for side in ("inputs", "outputs")
    }


def architecture(model: keras.Model) -> str:
    """Keras's summary of each part.

    >>> architecture(models.build("mlp", (8, 8, 1), 3, units=(4,))).splitlines()[0]
    'Model: "mlp"'
    """
    lines: list[str] = []
    for part in models.parts(model).values():
        part.summary(print_fn=lambda text, **_: lines.append(text), line_length=100)
    return "\n".join(lines) + "\n"
