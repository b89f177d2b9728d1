"""What is published beside a model for people: metrics.json, pictures, architecture, card."""

import dataclasses
import datetime
import json
import platform
import shlex
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
from training.publishing.evaluate import Evaluation, commonest
from training.publishing.listing import sizes_of_files
from training.recipes import RECIPES, Recipe
from training.settings import settings_of


@dataclass(frozen=True)
class TrainingRun:
    """What a run was asked, how it went and what came of it; command: what would do it again."""

    recipe: Recipe
    progress: Progress
    evaluation: Evaluation
    command: str = ""


def command(recipe: Recipe, name: str, data: Path | None) -> str:
    """What trains the same again; "" for a recipe of one's own, which no command knows.

    >>> command(dataclasses.replace(RECIPES["digits"], epochs=3), "digits", None)
    'sluice train digits --set epochs=3'
    """
    if recipe.name not in RECIPES:
        return ""
    defaults = {each.name: each.default for each in settings_of(RECIPES[recipe.name])}
    words = ["sluice", "train", recipe.name]
    words += ["--name", name] if name != recipe.name else []
    words += ["--data", str(data)] if data else []
    for setting in settings_of(recipe):
        if setting.default != defaults.get(setting.name):
            words += ["--set", f"{setting.name}={setting.shown_default}"]
    return shlex.join(words)


def write(
    directory: Path,
    model: keras.Model,
    dataset: Dataset,
    run: TrainingRun,
    signatures: Mapping[str, Any],
    extra: Mapping[str, Any],
    name: str,
) -> None:
    facts = _gather(model, dataset, run, signatures, name) | {
        **extra,
        "files": sizes_of_files(directory),
    }
    (directory / METRICS_FILE).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    (directory / "architecture.txt").write_text(architecture(model), "utf-8")
    gallery.draw(directory, model, dataset, run.progress.curves, run.evaluation)
    (directory / "model-card.md").write_text(model_card.render(facts, directory), "utf-8")


def _gather(
    model: keras.Model,
    dataset: Dataset,
    run: TrainingRun,
    signatures: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """metrics.json (docs/contract.md lists its keys)."""
    return {
        "name": name,
        "published": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": run.command,
        "accuracy": run.evaluation.accuracy,
        "guessing": {
            head_name: commonest(dataset.test.targets[head_name], head.labels)[1]
            for head_name, head in dataset.heads.items()
            if head.labels
        },
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
