"""What is published beside a model for people: metrics.json, pictures, architecture, card."""
from __future__ import annotations

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

from training import model_card, pictures
from training.checks import described
from training.dataset import Dataset
from training.evaluate import Evaluation, confusion
from training.fit import History
from training.recipes import Recipe


@dataclass(frozen=True)
class Run:
    """One training run."""

    recipe: Recipe
    history: History
    evaluation: Evaluation


def write(directory: Path, model: keras.Model, dataset: Dataset, run: Run,
          signatures: Mapping[str, Any]) -> None:
    facts = gather(model, dataset, run, signatures)
    (directory / "metrics.json").write_text(json.dumps(facts, indent=2) + "\n")
    (directory / "model-card.md").write_text(model_card.render(facts))
    (directory / "architecture.txt").write_text(architecture(model))
    pictures.draw_curves(run.history.curves, directory / "training.png")
    for number, (name, head) in enumerate(dataset.heads.items()):
        matrix = confusion(run.evaluation.outputs[name], dataset.test.targets[name])
        file = "confusion.png" if number == 0 else f"confusion-{name}.png"
        pictures.draw_confusion(matrix, head.labels, f"{name}, test images", directory / file)


def gather(model: keras.Model, dataset: Dataset, run: Run,
           signatures: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json (docs/contract.md lists its keys)."""
    return {
        "accuracy": run.evaluation.accuracy,
        "heads": dict(run.evaluation.metrics),
        "labels": {name: list(head.labels) for name, head in dataset.heads.items()},
        "recipe": dataclasses.asdict(run.recipe),
        "parameters": model.count_params(),
        "data": dataset.origin,
        "examples": {"train": len(dataset.train), "validation": len(dataset.validation),
                     "test": len(dataset.test)},
        "signatures": {name: described_signature(definition)
                       for name, definition in signatures.items()},
        "curves": run.history.curves,
        "seconds": round(run.history.seconds, 2),
        "versions": {"python": platform.python_version(), "keras": keras.__version__,
                     "tensorflow": tf.__version__, "numpy": np.__version__},
    }


def described_signature(definition: Any) -> dict[str, dict[str, str]]:
    return {side: {name: described(info)
                   for name, info in sorted(getattr(definition, side).items())}
            for side in ("inputs", "outputs")}


def architecture(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(print_fn=lambda text, **_: lines.append(text), line_length=100)
    return "\n".join(lines) + "\n"
