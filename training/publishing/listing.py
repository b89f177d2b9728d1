"""What a model repository holds: `sluice models`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.wire.contract import METRICS_FILE
from sluice.wire.versions import model_directories, published_versions


@dataclass(frozen=True)
class Published:
    """One version. metrics: by head, empty for a SavedModel that Sluice did not make."""

    model: str
    version: int
    signatures: tuple[str, ...]
    metrics: dict[str, dict[str, Any]]

    @property
    def measured(self) -> str:
        """`label accuracy 0.9861`, one measure for each head."""
        found = []
        for head, metrics in self.metrics.items():
            measure = next(
                name for name in ("iou", "accuracy", "absolute_error") if name in metrics
            )
            found.append(f"{head} {measure.replace('_', ' ')} {metrics[measure]:.4f}")
        return ", ".join(found)


def published(repository: Path) -> Iterator[Published]:
    """By model, oldest version first; nothing where there is no such folder."""
    for name, directory in model_directories(repository).items() if repository.is_dir() else ():
        for version, path in published_versions(directory).items():
            yield _describe(name, version, path)


def _describe(model: str, version: int, path: Path) -> Published:
    facts_file = path / METRICS_FILE
    if not facts_file.exists():
        # TensorFlow takes seconds to load: for others' models only.
        from training.publishing.saved_model import signature_defs

        return Published(model, version, tuple(signature_defs(path)), {})
    facts = json.loads(facts_file.read_text())
    return Published(model, version, tuple(facts["signatures"]), facts["heads"])


def table(repository: Path) -> str:
    """For people: a line for each version, columns aligned.

    >>> print(table(Path("no-such-folder")))
    MODEL  VERSION  SIGNATURES  ON TEST IMAGES
    """
    rows = [("MODEL", "VERSION", "SIGNATURES", "ON TEST IMAGES")]
    rows += [
        (each.model, str(each.version), ", ".join(each.signatures), each.measured)
        for each in published(repository)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
