"""A file, a directory or an object -> a Keras model, or a sentence that says why it is none."""

import importlib
import importlib.util
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import keras

from sluice.wire.versions import SAVED_MODEL
from training.errors import CannotAdopt

_HDF5 = b"\x89HDF\r\n\x1a\n"
_EXPORT = (
    "in the program that has the model, write it with model.export(DIRECTORY), and publish that"
)
_OTHERS = {  # what a file of this suffix is, and the way to something that can be published
    ".tflite": "a TensorFlow Lite model, which cannot be turned back: publish its source",
    ".onnx": "an ONNX model; publish the Keras model that it was made from",
    ".pt": "a PyTorch file; Sluice serves Keras and TensorFlow models",
    ".pth": "a PyTorch file; Sluice serves Keras and TensorFlow models",
    ".safetensors": "weights alone; build the Keras model, load them into it, and save it with "
    "model.save('model.keras')",
    ".pb": "a graph alone; publish the directory that holds saved_model.pb and variables/",
    ".ckpt": "a checkpoint: weights alone; load it into its model, and save that with "
    "model.save('model.keras')",
    ".json": "a model's layers without its weights; load both, and save with "
    "model.save('model.keras')",
}
_FOREIGN_LAYERS = {  # layers that run on another backend alone
    "TorchModuleWrapper": "PyTorch",
    "JaxLayer": "JAX",
    "FlaxLayer": "JAX",
}


def is_saved_model(source: object) -> bool:
    """Whether it is the path of a SavedModel directory, which is published as it is."""
    return isinstance(source, Path) and (source / SAVED_MODEL).is_file()


def load(source: Path | keras.Model, custom: ModuleType | None, *, allow_code: bool) -> keras.Model:
    """The Keras model of a `.keras`, `.h5` or `.hdf5` file; a model object as it is.

    custom: a module with the classes and functions that the model was built with.
    allow_code: also run the Python code that a Lambda layer keeps in the file.
    Raises CannotAdopt.
    """
    if isinstance(source, Path):
        model = _read(source, _objects_of(custom), allow_code=allow_code)
    else:
        model = source
    if not isinstance(model, keras.Model):
        raise CannotAdopt(
            f"expected a Keras model or the path of one, got {type(model).__name__}; save yours "
            f"with model.save('model.keras')"
        )
    _check_runnable(model)
    return model


def import_module(name: str) -> ModuleType:
    """A module by its name, or by the path of its file; the current directory is searched too.

    Raises CannotAdopt.

    >>> import_module("json").__name__
    'json'
    """
    try:
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(name).stem, name)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        return importlib.import_module(name)
    except Exception as error:  # it is the user's code: whatever it raises
        raise CannotAdopt(
            f"cannot import {name!r} ({type(error).__name__}: {error}); name a module that Python "
            f"finds from here, or its file (my_layers.py)"
        ) from error


def _read(path: Path, custom: Mapping[str, Any], *, allow_code: bool) -> keras.Model:
    _check_is_model_file(path)
    try:
        return keras.models.load_model(
            path, custom_objects=dict(custom), compile=False, safe_mode=not allow_code
        )
    except Exception as error:  # Keras raises whatever comes up on the way
        raise CannotAdopt(_in_words(path, error)) from error


def _check_is_model_file(path: Path) -> None:
    if not path.exists():
        raise CannotAdopt(f"there is no {path}")
    if path.is_dir():
        raise CannotAdopt(
            f"{path} is a directory without a {SAVED_MODEL}, so it is no SavedModel; "
            f"name that directory, or a .keras or .h5 file"
        )
    with path.open("rb") as file:
        head = file.read(8)
    if head == _HDF5:
        with h5py.File(path) as stored:
            if "model_config" not in stored.attrs:
                raise CannotAdopt(
                    f"{path} holds weights without their model; build the model, "
                    f"load_weights('{path.name}'), and save it with model.save('model.keras')"
                )
        return
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                _check_backend(path, archive.read("config.json").decode("utf-8", "replace"))
                return
    known = _OTHERS.get(path.suffix.lower(), "no Keras model: neither a .keras archive nor HDF5")
    hint = "" if path.suffix.lower() in _OTHERS else f"; {_EXPORT}"
    raise CannotAdopt(f"{path} is {known}{hint}")


def _check_backend(path: Path, config: str) -> None:
    for layer, backend in _FOREIGN_LAYERS.items():
        if f'"{layer}"' in config:
            raise CannotAdopt(
                f"{path} has a {layer}, which runs on {backend} alone; a SavedModel needs layers "
                f"of keras.layers or keras.ops"
            )


def _in_words(path: Path, error: Exception) -> str:
    """Keras's error as what it comes from and what to do."""
    text = " ".join(str(error).split())
    missing = re.search(
        r"(?:Could not locate (?:class|function)|Unknown (?:layer|\w+ function|object)):? '(\w+)'",
        text,
    )
    if missing:
        return (
            f"{path} was built with {missing[1]!r}, which is not part of Keras; name the module "
            f"that defines it with --custom-objects MODULE"
        )
    if "safe_mode" in text or "Lambda" in text:
        return (
            f"{path} has a Lambda layer, whose Python code is in the file and would run here; if "
            f"you trust the file, say --allow-code"
        )
    return (
        f"Keras {keras.__version__} cannot read {path} ({type(error).__name__}: {text[:300]}); "
        f"if another Keras wrote it, {_EXPORT}"
    )


def _objects_of(module: ModuleType | None) -> dict[str, Any]:
    """The classes and functions that a module defines, by name."""
    if module is None:
        return {}
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    }


def _check_runnable(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        if getattr(layer, "data_format", None) == "channels_first":
            raise CannotAdopt(
                f"layer {layer.name!r} wants its channels first, which TensorFlow computes on GPUs "
                f"alone; build the model with data_format='channels_last' and copy "
                f"the weights"
            )
