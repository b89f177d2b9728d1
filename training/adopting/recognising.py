"""Whether a path holds a model, told by what is in it before any of it is loaded."""

import json
import re
import stat
import zipfile
from pathlib import Path

import h5py

from sluice.wire.versions import SAVED_MODEL
from training.adopting.reading import check_hdf5, reading
from training.adopting.reading_hdf5 import Hostile, check_size
from training.errors import CannotAdopt

EXPORT = (
    "in the program that has the model, write it with model.export(DIRECTORY), and publish that"
)
_SAVE = "model.save('model.keras')"
_CONFIG = "config.json"
_MOST_CONFIG = 100_000_000  # bytes: it becomes some times as many objects of Python's
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")  # a Path has one slash of the two
_BEGINNINGS = {  # what is not the file that its name says
    b"version https://git-lfs": "the note that Git LFS leaves in a file's place: git lfs pull",
    b"<!doctype html": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
}
_OTHERS = {  # what a file of this suffix is, and the way to something that can be published
    ".tflite": "a TensorFlow Lite model, which cannot be turned back: publish its source",
    ".onnx": "an ONNX model; publish the Keras model that it was made from",
    ".pt": "a PyTorch file; Sluice serves Keras and TensorFlow models",
    ".pth": "a PyTorch file; Sluice serves Keras and TensorFlow models",
    ".safetensors": f"weights alone; build the Keras model, load them into it, and {_SAVE}",
    ".pb": "a graph alone; publish the directory that holds saved_model.pb and variables/",
    ".ckpt": f"a checkpoint: weights alone; load it into its model, and {_SAVE}",
    ".index": f"part of a checkpoint: weights alone; load it into its model, and {_SAVE}",
    ".json": f"a model's layers without its weights; load both, and {_SAVE}",
    ".pkl": f"a Python pickle; load it where it was written, and {_SAVE}",
    ".pickle": f"a Python pickle; load it where it was written, and {_SAVE}",
    ".zip": "an archive; unpack it, and publish what is in it",
    ".gz": "an archive; unpack it, and publish what is in it",
    ".tar": "an archive; unpack it, and publish what is in it",
    ".tgz": "an archive; unpack it, and publish what is in it",
}
_FOREIGN_LAYERS = {  # layers that run on another backend alone
    "TorchModuleWrapper": "PyTorch",
    "JaxLayer": "JAX",
    "FlaxLayer": "JAX",
}


def is_saved_model(source: object) -> bool:
    """Whether it is the path of a SavedModel directory, which is published as it is.

    >>> is_saved_model(Path("pets.keras"))
    False
    """
    return isinstance(source, Path) and (source / SAVED_MODEL).is_file()


def check_is_model(path: Path) -> None:
    """Raises CannotAdopt for what is no `.keras` or HDF5 model and no SavedModel, and for damage.

    >>> check_is_model(Path("https://example.org/pets.keras"))
    Traceback (most recent call last):
    training.errors.CannotAdopt: https:/example.org/pets.keras is an address: download the file, \
and publish that
    """
    with reading(path):
        if not path.exists():
            if _ADDRESS.match(str(path)):
                raise CannotAdopt(f"{path} is an address: download the file, and publish that")
            raise CannotAdopt(f"there is no {path}")
        if path.is_dir():
            if not is_saved_model(path):
                raise CannotAdopt(_why_no_saved_model(path))
        elif not stat.S_ISREG(path.stat().st_mode):
            raise CannotAdopt(f"{path} is no file but a device or a pipe: expected a model's file")
        else:
            _check_is_model_file(path)


def keras_of(path: Path) -> str:
    """The version of Keras that wrote a `.keras` or HDF5 file; "" where the file does not say.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".keras") as file:
    ...     with zipfile.ZipFile(file, "w") as archive:
    ...         archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
    ...     keras_of(Path(file.name))
    '3.0.0'
    """
    with reading(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if "metadata.json" not in archive.namelist():
                    return ""
                metadata = json.loads(archive.read("metadata.json"))
                return str(metadata.get("keras_version", ""))
        with h5py.File(path) as stored:
            return str(stored.attrs.get("keras_version", ""))


def _check_is_model_file(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise CannotAdopt(f"{path} is empty: copy it again")
    for beginning, what in _BEGINNINGS.items():
        if head.lower().startswith(beginning):
            raise CannotAdopt(f"{path} is {what}")
    if head.startswith(_HDF5):
        _check_hdf5_model(path)
    elif zipfile.is_zipfile(path):
        _check_archive(path)
    elif head.startswith(_ZIP):
        raise CannotAdopt(
            f"{path} is damaged or cut short (an archive without its end): copy it again"
        )
    else:
        raise CannotAdopt(_no_model(path))


def _check_hdf5_model(path: Path) -> None:
    check_hdf5(path)
    with h5py.File(path) as stored:
        if "model_config" not in stored.attrs:
            raise CannotAdopt(
                f"{path} holds weights without their model; build the model, "
                f"load_weights('{path.name}'), and save it with {_SAVE}"
            )


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if _CONFIG not in archive.namelist():
            raise CannotAdopt(_no_model(path, otherwise=_OTHERS[".zip"]))
        _check_sizes(path, archive)
        if damaged := archive.testzip():
            raise CannotAdopt(f"{path} is damaged ({damaged} in it): copy it again")
        config = archive.read(_CONFIG).decode("utf-8", "replace")
    for layer, backend in _FOREIGN_LAYERS.items():
        if f'"{layer}"' in config:
            raise CannotAdopt(
                f"{path} has a {layer}, which runs on {backend} alone; a SavedModel needs layers "
                f"of keras.layers or keras.ops"
            )
    check_hdf5(path)


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """All of them together too: a thousand may lie in the same bytes."""
    entries = archive.infolist()
    name = ""
    try:
        for info in entries:
            name = f": {info.filename}"
            check_size(info.file_size, info.compress_size)
        name = ""
        check_size(sum(info.file_size for info in entries), path.stat().st_size)
    except Hostile as error:
        raise CannotAdopt(f"{path}{name} {error}") from error
    if (size := archive.getinfo(_CONFIG).file_size) > _MOST_CONFIG:
        raise CannotAdopt(
            f"{path}: its {_CONFIG} has {size:,} bytes, where a model's layers take some thousands "
            f"each: save the model again with {_SAVE}"
        )


def _no_model(path: Path, otherwise: str = "") -> str:
    known = _OTHERS.get(path.suffix.lower(), otherwise)
    if known:
        return f"{path} is {known}"
    return f"{path} is no Keras model: neither a .keras archive nor HDF5; {EXPORT}"


def _why_no_saved_model(path: Path) -> str:
    inside = [
        each
        for each in sorted(path.iterdir())
        if is_saved_model(each)
        or (each.suffix in (".keras", ".h5", ".hdf5") and not each.name.endswith(".weights.h5"))
    ]
    meant = f"; did you mean {inside[0]}?" if inside else "; name one, or a .keras or .h5 file"
    return f"{path} is a directory without a {SAVED_MODEL}, so it is no SavedModel{meant}"
