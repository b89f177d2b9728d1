"""A file, a directory or an object -> a Keras model, or a sentence that says why it is none."""

import contextlib
import importlib
import importlib.util
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from training.adopting.reading import first_line
from training.adopting.recognising import EXPORT, check_is_model, keras_of
from training.errors import CannotAdopt

_NAME = re.compile(r"[A-Za-z0-9_.\\/>-]*")  # of a scope, as tf.name_scope takes it


def load(source: Path | keras.Model, custom: ModuleType | None, *, allow_code: bool) -> keras.Model:
    """The Keras model of a `.keras`, `.h5` or `.hdf5` file; a model object as it is.

    custom: a module with the classes and functions that the model was built with.
    allow_code: also run the Python code that a Lambda layer keeps in the file.
    Raises CannotAdopt.
    """
    model = _read(source, custom, allow_code=allow_code) if isinstance(source, Path) else source
    if not isinstance(model, keras.Model):
        raise CannotAdopt(
            f"expected a Keras model or the path of one, got {type(model).__name__}; save yours "
            f"with model.save('model.keras')"
        )
    _check_runnable(model)
    return _with_free_batch(model)


def import_module(name: str) -> ModuleType:
    """A module by its name, or by the path of its file; the current directory is searched too, and
    for what a file imports, the directory that it is in.

    Raises CannotAdopt.

    >>> import_module("json").__name__
    'json'
    """
    try:
        if name.endswith(".py"):
            return _import_file(Path(name))
        _search(Path.cwd())
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # it is the user's code: whatever it raises
        raise CannotAdopt(
            f"cannot import {name!r} ({type(error).__name__}: {error}); name a module that Python "
            f"finds from here, or its file (my_layers.py)"
        ) from error


def _import_file(path: Path) -> ModuleType:
    _search(path.resolve().parent)
    stem = path.stem
    # Not in the place of another, and not without one: dataclasses look their module up.
    spec = importlib.util.spec_from_file_location(f"_{stem}" if stem in sys.modules else stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _search(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def _read(path: Path, custom: ModuleType | None, *, allow_code: bool) -> keras.Model:
    check_is_model(path)
    try:
        with _named_as_it_is(path) as named:
            objects = _objects_of(custom)
            if not zipfile.is_zipfile(path):
                objects = _operations() | objects
            return keras.models.load_model(
                named, custom_objects=objects, compile=False, safe_mode=not allow_code
            )
    except Exception as error:  # Keras raises whatever comes up on the way
        raise CannotAdopt(_in_words(path, custom, error)) from error


@contextlib.contextmanager
def _named_as_it_is(path: Path) -> Iterator[Path]:
    """Keras goes by the name; TensorFlow 2.12 wrote HDF5 under that of an archive."""
    suffixes = (".keras",) if zipfile.is_zipfile(path) else (".h5", ".hdf5")
    if path.suffix in suffixes:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"model{suffixes[0]}")
        link.symlink_to(path.resolve())
        yield link


def _in_words(path: Path, custom: ModuleType | None, error: Exception) -> str:
    """Keras's error as what it comes from and what to do."""
    text = " ".join(str(error).split())
    missing = re.search(
        r"(?:Could not locate (?:class|function)|Unknown (?:layer|\w+ function|object)):? '(\w+)'",
        text,
    )
    if missing and custom:
        return (
            f"{path} was built with {missing[1]!r}, which {custom.__name__} does not define, or "
            f"not under the name that it was saved by"
        )
    if missing:
        return (
            f"{path} was built with {missing[1]!r}, which is not part of Keras; name the module "
            f"that defines it with --custom-objects MODULE"
        )
    if "vocabulary file" in text:
        return (
            f"{path} takes a layer's words from another file of this machine; build the layer with "
            f"vocabulary=[…], or adapt it, and save the model again"
        )
    if "safe_mode" in text or "Lambda" in text:
        return (
            f"{path} has a Lambda layer, whose Python code is in the file and would run here; if "
            f"you trust the file, say --allow-code"
        )
    writer = keras_of(path)
    return (
        f"Keras {keras.__version__} cannot read {path}{f', written by {writer}' if writer else ''} "
        f"({type(error).__name__}: {first_line(error)}); if it is whole, {EXPORT}"
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


def _operations() -> dict[str, Any]:
    """Keras' own operations (`x[:, 0]`, `x / 2`), which it writes into HDF5 files by their classes'
    names alone, and does not find again."""
    return {
        name: _LayerOr(operation, getattr(keras.layers, name))
        if hasattr(keras.layers, name)
        else operation
        for operation in _below(keras.Operation)
        if operation.__module__.partition(".")[0] == "keras"
        and not issubclass(operation, keras.Layer)
        for name in [operation.__name__]
    }


def _below(kind: Any) -> Iterator[Any]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


class _LayerOr:
    """Of an operation and a layer of one name, `Add` for one, the one whose settings these are."""

    def __init__(self, operation: Any, layer: Any) -> None:
        self._operation, self._layer = operation, layer

    def from_config(self, config: dict[str, Any]) -> Any:
        """Layers alone are trained; of Keras 2.0 they have no dtype yet."""
        is_layer = not config.keys().isdisjoint(("dtype", "trainable"))
        return (self._layer if is_layer else self._operation).from_config(config)


def _check_runnable(model: keras.Model) -> None:
    inputs = keras.layers.InputLayer  # whose names are no part of a graph
    for layer in model._flatten_layers():
        if not (isinstance(layer, inputs) or _NAME.fullmatch(layer.name)):
            raise CannotAdopt(
                f"{layer.name!r} is the name of the model or of a layer of it, and TensorFlow "
                f"knows letters of A to Z, digits and _ . - in names alone: give it another, as in "
                f"layer.name = 'size_cm', and save the model again"
            )
        if getattr(layer, "data_format", None) == "channels_first":
            raise CannotAdopt(
                f"layer {layer.name!r} wants its channels first, which TensorFlow computes on GPUs "
                f"alone; build the model with data_format='channels_last' and copy "
                f"the weights"
            )


def _with_free_batch(model: keras.Model) -> keras.Model:
    """A Sequential that was built by the batch it was called on takes batches of that size alone;
    its layers take any, but for those that keep state by row."""
    inputs = getattr(model, "inputs", None)
    if not (isinstance(model, keras.Sequential) and inputs and inputs[0].shape[0] is not None):
        return model
    if any(getattr(layer, "stateful", False) for layer in model._flatten_layers()):
        return model
    given = keras.Input(inputs[0].shape[1:], dtype=inputs[0].dtype, name=inputs[0].name)
    return keras.Sequential([given, *model.layers], name=model.name)
