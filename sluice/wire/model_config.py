"""A model repository as TensorFlow Serving's models.config, the one list of what is served."""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format

from sluice.wire.protos.serving_pb2 import ModelConfig, ModelConfigList, ModelServerConfig


def models_in(repository: Path) -> list[str]:
    """Names of the directories that hold at least one version, sorted.

    A version is a directory named by a whole number, as TensorFlow Serving reads it.
    """
    if not repository.is_dir():
        return []
    return sorted(each.name for each in repository.iterdir() if _versions_in(each))


def newest_version(model_directory: Path) -> Path:
    """The directory of the newest version of a model that has one."""
    return max(_versions_in(model_directory), key=lambda version: int(version.name))


def write_config(path: Path, repository: Path, names: Iterable[str]) -> None:
    """Write the file whole: whoever reads it finds the old list or the new one."""
    base = repository.resolve()
    models = [
        ModelConfig(name=name, base_path=str(base / name), model_platform="tensorflow")
        for name in names
    ]
    config = ModelServerConfig(model_config_list=ModelConfigList(config=models))
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text_format.MessageToString(config))
    beside.replace(path)


def read_names(path: Path) -> list[str]:
    """The models that a models.config names."""
    config = text_format.Parse(path.read_text(), ModelServerConfig())
    return [model.name for model in config.model_config_list.config]


def _versions_in(model_directory: Path) -> list[Path]:
    if model_directory.name.startswith(".") or not model_directory.is_dir():
        return []
    return [
        each
        for each in model_directory.iterdir()
        if each.name.isascii() and each.name.isdigit() and each.is_dir()
    ]
