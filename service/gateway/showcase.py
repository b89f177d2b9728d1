"""What lies beside a version for people: its card, pictures and samples, where the gateway may read
the model repository.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.wire.contract import METRICS_FILE, WARMUP_FILE
from sluice.wire.labels import labels_in_force
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Event
from sluice.wire.versions import SAVED_MODEL, published_versions

# Nothing else of a version is shown: variables and graph are the model itself.
_SHOWN = re.compile(r"(samples/)?[\w-]+(\.[\w-]+)?\.png")
_SAMPLE = re.compile(r"samples/(?P<key>[\w-]+)(\.(?P<input>[\w-]+))?\.png")
_PICTURES = {  # docs/contract.md, in the order in which they are shown
    "training": "Loss and measures by epoch",
    "confusion": "Which class was taken for which",
    "mistakes": "The mistakes it was surest of",
    "masks": "True masks and answered ones",
    "samples": "Pictures that it drew",
}


class Showcase:
    """repository: the model repository's directory; None: nothing is shown."""

    def __init__(self, repository: Path | None) -> None:
        self._repository = repository

    def file(self, model: str, version: int, name: str) -> Path | None:
        """A picture beside a version; None where there is none of this name."""
        directory = self._versions(model).get(version)
        if directory is None or not _SHOWN.fullmatch(name):
            return None
        path = directory / name
        return path if path.is_file() else None

    def describe(self, model: str) -> dict[int, dict[str, Any]]:
        """By version, newest first: `pictures` (file and title), `samples` (by their names, files
        by input name, which is "" of the only one), `metrics` (what training wrote, or {}), `names`
        (the version's labels), `bytes` (of what a model server reads) and `warm` (whether it is
        warmed up)."""
        return {
            version: {
                "pictures": _pictures(directory),
                "samples": _samples(directory),
                "metrics": _metrics(directory),
                "names": [name for name, of in _names(directory.parent).items() if of == version],
                "bytes": _bytes(directory),
                "warm": (directory / WARMUP_FILE).is_file(),
            }
            for version, directory in sorted(self._versions(model).items(), reverse=True)
        }

    def rollouts(self, model: str) -> list[tuple[int, Event]]:
        """What became of the versions that were rolled out, the newest first."""
        directory = self._directory(model)
        try:
            found = read_rollout(directory, check_versions=False) if directory else None
        except (OSError, ValueError):  # who follows it says what is wrong with it
            return []
        rollouts = found.remembered if found else ()
        return [(each.next, event) for each in rollouts for event in each.history][::-1]

    def labels(self, model: str, version: int) -> dict[str, list[str]]:
        """By head the names of its classes, in the order of their indices; {} where they are not
        known."""
        directory = self._versions(model).get(version)
        found = _metrics(directory).get("labels") if directory else None
        return found if isinstance(found, dict) else {}

    def _versions(self, model: str) -> dict[int, Path]:
        directory = self._directory(model)
        try:
            return published_versions(directory) if directory else {}
        except OSError:  # it may not be read, or is gone
            return {}

    def _directory(self, model: str) -> Path | None:
        if self._repository is None or "/" in model or model in ("", ".", ".."):
            return None
        return self._repository / model


def _pictures(directory: Path) -> list[tuple[str, str]]:
    """(file, title)"""
    found = sorted(path.name for path in directory.glob("*.png"))
    return [
        (name, title + (f": {rest.lstrip('-')}" if (rest := name[len(stem) : -4]) else ""))
        for stem, title in _PICTURES.items()
        for name in found
        if name.startswith(stem) and _SHOWN.fullmatch(name)
    ]


def _samples(directory: Path) -> dict[str, dict[str, str]]:
    samples: dict[str, dict[str, str]] = {}
    for path in sorted(directory.glob("samples/*.png")):
        if match := _SAMPLE.fullmatch(f"samples/{path.name}"):
            samples.setdefault(match["key"], {})[match["input"] or ""] = match[0]
    return samples


def _names(model_directory: Path) -> Mapping[str, int]:
    try:
        return labels_in_force(model_directory)
    except (OSError, ValueError):  # `sluice label` and `sluice models` say what is wrong with it
        return {}


def _bytes(directory: Path) -> int:
    files = [directory / SAVED_MODEL, *directory.glob("variables/*"), *directory.glob("assets/*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def _metrics(directory: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((directory / METRICS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
