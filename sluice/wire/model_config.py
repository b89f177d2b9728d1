"""A model repository as TensorFlow Serving's models.config, the one list of what is served."""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format

from sluice.wire.protos.serving_pb2 import ModelConfig, ModelConfigList, ModelServerConfig
from sluice.wire.versions import find_versions


def models_in(repository: Path) -> list[str]:
    """Names of the directories that hold at least one version, sorted; hidden ones do not count.

    Raises OSError where the repository cannot be listed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as repository:
    ...     for version in ("digits/1", "digits/2", "photos/draft"):
    ...         Path(repository, version).mkdir(parents=True)
    ...     models_in(Path(repository))
    ['digits']
    """
    if not repository.is_dir():
        return []
    return sorted(
        each.name
        for each in repository.iterdir()
        if not each.name.startswith(".") and each.is_dir() and _has_versions(each)
    )


def write_config(path: Path, repository: Path, names: Iterable[str]) -> None:
    """Write the file whole: whoever reads it finds the old list or the new one.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     config = Path(folder, "models.config")
    ...     write_config(config, Path("model_repository"), ["digits", "photos"])
    ...     read_names(config)
    ['digits', 'photos']
    """
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
    """The models that a models.config names; `write_config` shows how.

    Raises OSError, and text_format.ParseError for what is not such a file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     config = Path(folder, "models.config")
    ...     _ = config.write_text('model_config_list { config { name: "digits" } }')
    ...     read_names(config)
    ['digits']
    """
    config = text_format.Parse(path.read_text(), ModelServerConfig())
    return [model.name for model in config.model_config_list.config]


def _has_versions(model_directory: Path) -> bool:
    try:
        return bool(find_versions(model_directory))
    except (FileNotFoundError, PermissionError):  # taken away meanwhile; a volume's lost+found
        return False
