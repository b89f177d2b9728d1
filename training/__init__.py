"""From a recipe to a published version. Importing this loads no TensorFlow; `train` does."""

import os
from collections.abc import Mapping
from pathlib import Path

from sluice.wire.versions import model_name_fault
from training.errors import BadSetting, TrainingError
from training.recipes import RECIPES, Recipe
from training.settings import configure

__all__ = ["RECIPES", "Recipe", "TrainingError", "train"]


def train(
    recipe: str | Recipe,
    *,
    model_repository: Path | str,
    data: Path | str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    settings: Mapping[str, object] | None = None,
    name: str | None = None,
    resume: bool = False,
    allow_breaking: bool = False,
) -> Path | None:
    """Train a recipe and publish the result; give `model_repository/<name>/<version>`.

    Of several machines that train together (TF_CONFIG) the first publishes; the others get None.

    data: the images' folder (or file), where the recipe's own source is not wanted or not there.
    epochs, batch_size: short for these two of the settings.
    settings: the recipe's fields by name; text is taken as the field's type.
    name: the published model's, the recipe's where not given.
    resume: go on after the last finished epoch of a run that was cut off; settings must be its own.
    allow_breaking: publish also where clients of the version before would break.
    Raises TrainingError, whose message is meant for the user.

    >>> train("digits", model_repository=Path("model_repository"))  # doctest: +SKIP
    PosixPath('model_repository/digits/1')
    >>> train("digit", model_repository=Path("model_repository"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    training.errors.UnknownName: there is no recipe 'digit'; known, nearest first: digits, ...
    """
    given = {"epochs": epochs, "batch_size": batch_size}
    asked = dict(settings or {}) | {key: value for key, value in given.items() if value is not None}
    chosen = configure(recipe, asked)
    name = chosen.name if name is None else name
    if fault := model_name_fault(name):
        raise BadSetting(f"a model cannot be named {name!r}: {fault}")

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notices would bury the progress bar
    from training.run import run  # TensorFlow takes seconds to load: not to answer a misspelling

    return run(
        chosen,
        model_repository=Path(model_repository),
        data=None if data is None else Path(data),
        name=name,
        resume=resume,
        allow_breaking=allow_breaking,
    )
