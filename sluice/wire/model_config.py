"""A model repository as TensorFlow Serving's models.config, the one list of what is served."""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format

from sluice.wire.labels import read_labels
from sluice.wire.protos.serving_pb2 import ModelConfig, ModelConfigList, ModelServerConfig
from sluice.wire.versions import find_versions, model_directories


def models_in(repository: Path) -> list[str]:
    """The names of the repository's models, sorted; [] where there is no repository yet.

    Raises OSError where it cannot be listed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as repository:
    ...     for version in ("digits/1", "digits/2", "photos/draft"):
    ...         Path(repository, version).mkdir(parents=True)
    ...     models_in(Path(repository))
    ['digits']
    """
    return list(model_directories(repository)) if repository.is_dir() else []


def write_config(path: Path, repository: Path, names: Iterable[str]) -> None:
    """Write the file whole: whoever reads it finds the old list or the new one.

    Of a model with labels (labels.py) the labelled versions are served beside the newest, else the
    newest alone. A file that says the same already is left as it is.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     config = Path(folder, "models.config")
    ...     write_config(config, Path("model_repository"), ["digits", "photos"])
    ...     read_names(config)
    ['digits', 'photos']
    """
    base = repository.resolve()
    models = [_model_config(name, base / name) for name in names]
    config = ModelServerConfig(model_config_list=ModelConfigList(config=models))
    text = text_format.MessageToString(config)
    if path.exists() and path.read_text() == text:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
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


def _model_config(name: str, directory: Path) -> ModelConfig:
    config = ModelConfig(name=name, base_path=str(directory), model_platform="tensorflow")
    versions = find_versions(directory) if directory.is_dir() else {}
    try:
        labels = {
            label: version
            for label, version in read_labels(directory).items()
            if version in versions
        }
    except (OSError, ValueError):  # a bad file takes no model out of service
        labels = {}
    if labels:
        config.version_labels.update(labels)
        served = sorted({*labels.values(), max(versions)})
        config.model_version_policy.specific.versions.extend(served)
    return config
