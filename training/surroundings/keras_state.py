"""Keras' global settings as a run needs them, whatever keras.json, variables or code say.

With channels_first, for one, a network is built that reads columns as colours, and trains well
enough to be published.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from training.errors import TrainingError

_BACKEND = "tensorflow"
_OURS = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "dtype_policy": "float32",  # after floatx, which it follows where it is not set
}
# What Keras reads from the environment; KERAS_HOME says where keras.json and its data sets are.
_VARIABLES = {
    "KERAS_BACKEND": _BACKEND,
    "KERAS_NNX_ENABLED": None,
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
    "TF_USE_LEGACY_KERAS": None,
}


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Ours within, with a line for each that was another; the user's again afterwards.

    Raises TrainingError where Keras cannot be had with TensorFlow.

    >>> import keras
    >>> keras.config.set_image_data_format("channels_first")
    >>> with pinned():
    ...     keras.config.image_data_format()
    Keras: image_data_format is channels_first; this run uses channels_last
    'channels_last'
    >>> keras.config.set_image_data_format("channels_last")
    """
    with _environment():
        keras = _import_keras()
        before = {name: getattr(keras.config, name)() for name in _OURS}
        _say_differences(before)
        try:
            _set(keras, _OURS)
            yield
        finally:
            _set(keras, before)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _VARIABLES}
    for name, value in before.items():
        if value not in (None, "", _VARIABLES[name]):
            print(f"Keras: {name}={value} is not heeded; this run uses TensorFlow and all its data")
    try:
        _export(_VARIABLES)
        yield
    finally:
        _export(before)


def _export(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _import_keras() -> ModuleType:
    try:
        import keras
    except (ValueError, TypeError, AttributeError, OSError) as error:  # by what the file holds
        raise TrainingError(
            f"Keras cannot be loaded, most likely for what is in {_file()}: {error}. Mend or "
            f"remove that file"
        ) from error
    if keras.config.backend() != _BACKEND:
        raise TrainingError(
            f"Keras was loaded with the backend {keras.config.backend()} before: expected "
            f"{_BACKEND}. Train in a process of its own, or set KERAS_BACKEND={_BACKEND} before "
            f"Keras is imported"
        )
    loaded: ModuleType = keras
    return loaded


def _set(keras: ModuleType, values: dict[str, Any]) -> None:
    for name, value in values.items():
        getattr(keras.config, f"set_{name}")(value)


def _say_differences(before: dict[str, Any]) -> None:
    said = _said_by_file()
    found = {name: getattr(value, "name", value) for name, value in before.items()}
    if "backend" in said:
        found["backend"] = said["backend"]
    for name, ours in {**_OURS, "backend": _BACKEND}.items():
        theirs = found.get(name, ours)
        if theirs != ours and not (name == "dtype_policy" and theirs == found["floatx"]):
            where = f" in {_file()}" if said.get(name) == theirs else ""
            print(f"Keras: {name} is {theirs}{where}; this run uses {ours}")


def _file() -> Path:
    home = os.environ.get("KERAS_HOME")
    return Path(home or Path("~/.keras").expanduser(), "keras.json")


def _said_by_file() -> dict[str, Any]:
    try:
        said = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
