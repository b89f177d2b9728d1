"""What lies beside an adopted model for people: metrics.json, its card, its samples."""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.contract import METRICS_FILE
from training.data.dataset import Arrays
from training.data.heads import Head
from training.publishing.listing import sizes_of_files
from training.publishing.model_card import explained, graphs, listed, novelty, results, table
from training.publishing.report import architecture, described_signature
from training.publishing.trials import encode_png

_SHOWN = 8  # sample pictures beside a version


def write(
    directory: Path,
    name: str,
    facts: Mapping[str, Any],
    signatures: Mapping[str, Any],
    model: keras.Model | None,
) -> None:
    """facts: the card's lines by what they say: source, preprocessing, how it was tried."""
    parameters = model.count_params() if model is not None else None
    whole = {
        "name": name,
        "heads": {},  # where nothing was measured: there are no true answers
        **facts,
        "parameters": parameters,
        "signatures": {each: described_signature(found) for each, found in signatures.items()},
        "files": sizes_of_files(directory),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }
    (directory / METRICS_FILE).write_text(json.dumps(whole, indent=2) + "\n")
    (directory / "model-card.md").write_text(_card(name, whole, directory))
    if model is not None:
        (directory / "architecture.txt").write_text(architecture(model))


def write_samples(directory: Path, inputs: Arrays, images: Mapping[str, Any]) -> None:
    """The pictures it was tried on, as training writes its own: `sample-0.png`, or with the
    input's name where there are several."""
    directory.mkdir()
    for name in images:
        suffix = f".{name}" if len(inputs) > 1 else ""
        for row, image in enumerate(inputs[name][:_SHOWN]):
            (directory / f"sample-{row}{suffix}.png").write_bytes(encode_png(image))


def labels_of(heads: Mapping[str, Head]) -> dict[str, list[str]]:
    return {name: list(head.labels) for name, head in heads.items()}


def fingerprint(source: Path) -> str:
    """SHA-256 of a file, or of a SavedModel's graph."""
    file = source / "saved_model.pb" if source.is_dir() else source
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _card(name: str, facts: Mapping[str, Any], directory: Path) -> str:
    size = f", {facts['parameters']:,} parameters" if facts["parameters"] else ""
    lines = [
        f"# {name}",
        f"{facts['source']['what']}{size}; published as it is, not trained here.",
        "## What it is taken for",
        "\n".join(f"- {note}" for note in facts["notes"]),
        "## How it was tried",
        facts["tried"],
        "## What `explain` looks at",
        explained(facts["explained"]),
        *novelty(facts["novelty"]),
        *(results(facts, directory) if facts["heads"] else ()),
        *(graphs(facts["graphs"]) if "graphs" in facts else ()),
        "## Signatures",
        table(
            ("signature", "inputs", "outputs"),
            [
                (f"`{each}`", listed(sides["inputs"]), listed(sides["outputs"]))
                for each, sides in facts["signatures"].items()
            ],
        ),
        "## Source",
        table(("", ""), [(key, str(value)) for key, value in facts["source"].items()]),
        "Published with "
        + ", ".join(f"{each} {version}" for each, version in facts["versions"].items())
        + ".",
    ]
    return "\n\n".join(lines) + "\n"
