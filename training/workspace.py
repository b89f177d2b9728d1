"""<repository>/<model>/.training: what a run keeps while it runs. No model server looks at it."""
from __future__ import annotations

import shutil
from pathlib import Path

REMEMBERED = {"split.csv"}  # a later run must hold out the same images


def prepare(model_directory: Path, *, keep: bool) -> Path:
    """The folder; emptied, but for what is remembered, unless its content is to `keep`."""
    workspace = model_directory / ".training"
    workspace.mkdir(parents=True, exist_ok=True)
    if not keep:
        for entry in workspace.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in REMEMBERED:
                entry.unlink()
    return workspace


def finish(workspace: Path) -> None:
    """Nothing is left to resume: of a published run, the logs and the split remain."""
    for entry in [*workspace.glob("*.npz"), *workspace.glob("*.npy")]:
        entry.unlink()
