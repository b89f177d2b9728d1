"""A run's state on disk after every epoch, so that a killed run can go on."""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from sluice.wire.tensors import Array
from training.errors import CannotResume
from training.recipes import Recipe
from training.surroundings.disk import room_for

Curves = dict[str, list[float]]

_NOT_OF_TRAINING = {"margin", "explain_layer"}


@dataclass
class Progress:
    """curves: each epoch's means by name, the validation split's under `validation_<name>`.
    best: the weights with the lowest validation loss, where the recipe stops early.

    >>> progress = Progress()
    >>> progress.record({"loss": 2.0, "validation_loss": 2.5})
    >>> progress.record({"loss": 1.0, "validation_loss": 2.7})
    >>> progress.epochs, progress.best_epoch
    (2, 0)
    """

    curves: Curves = field(default_factory=dict)
    seconds: float = 0.0
    best: list[Array] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        return len(self.curves.get("loss", []))

    @property
    def best_epoch(self) -> int:
        """From 0; of the lowest validation loss."""
        losses = self.curves["validation_loss"]
        return losses.index(min(losses))

    def record(self, means: dict[str, float]) -> None:
        """Add an epoch's means."""
        for name, value in means.items():
            self.curves.setdefault(name, []).append(value)


def save(
    path: Path, recipe: Recipe, progress: Progress, variables: Sequence[keras.Variable]
) -> None:
    """Whole or not at all: written beside, synced, renamed. Raises DiskFull."""
    about = {
        "recipe": dataclasses.asdict(recipe),
        "curves": progress.curves,
        "seconds": progress.seconds,
    }
    arrays: dict[str, Any] = {
        f"variable_{number}": np.asarray(variable) for number, variable in enumerate(variables)
    }
    arrays |= {f"best_{number}": array for number, array in enumerate(progress.best)}
    partial = path.with_suffix(".partial")
    needed = sum(array.nbytes for array in arrays.values())
    try:
        with room_for("a checkpoint", path.parent, needed), partial.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def restore(path: Path, recipe: Recipe, variables: Sequence[keras.Variable]) -> Progress:
    """Assign `variables`. Raises CannotResume where nothing is to resume, or settings differ."""
    if not path.exists():
        raise CannotResume(
            f"nothing to resume: there is no {path}. A run that was published has "
            f"no checkpoint any more; start without --resume"
        )
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        _check_settings(about["recipe"], recipe)
        try:
            for number, variable in enumerate(variables):
                variable.assign(file[f"variable_{number}"])
        except (KeyError, ValueError) as error:
            raise CannotResume(
                f"cannot resume: {path} is of a model of another shape, as other images or classes "
                f"make it; start without --resume"
            ) from error
        best = [
            file[f"best_{number}"]
            for number in range(len(file.files))
            if f"best_{number}" in file.files
        ]
    return Progress(about["curves"], about["seconds"], best)


def _check_settings(before: dict[str, Any], recipe: Recipe) -> None:
    now = json.loads(json.dumps(dataclasses.asdict(recipe)))
    other = sorted(
        key for key in now if before.get(key) != now[key] and key not in _NOT_OF_TRAINING
    )
    if other:
        raise CannotResume(
            "cannot resume with other settings: "
            + ", ".join(f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in other)
        )
