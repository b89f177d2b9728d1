"""A model repository as TensorFlow Serving's models.config, the one list of what is served."""

from collections.abc import Collection, Iterable
from pathlib import Path

from google.protobuf import text_format

from sluice.wire.labels import labels_in_force
from sluice.wire.protos.serving_pb2 import ModelConfig, ModelConfigList, ModelServerConfig
from sluice.wire.rollout_files import read_rollout
from sluice.wire.versions import find_versions


def write_config(path: Path, repository: Path, names: Iterable[str]) -> None:
    """Write the file whole: whoever reads it finds the old list or the new one.

    Of a model with labels (labels.py) the labelled versions are served beside the newest, else the
    newest alone; while there is a rollout (rollouts.py) its versions in the newest's place. Where a
    rollout's file cannot be used its model stays in the list as it was. A file that says the same
    already is left as it is.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     config = Path(folder, "models.config")
    ...     write_config(config, Path("model_repository"), ["digits", "photos"])
    ...     read_names(config)
    ['digits', 'photos']
    """
    base = repository.resolve()
    before = _by_name(path)
    models = [_model_config(name, base / name, before.get(name)) for name in names]
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


def _by_name(path: Path) -> dict[str, ModelConfig]:
    """What the file says of each model; {} where it is none."""
    try:
        config = text_format.Parse(path.read_text(), ModelServerConfig())
    except (OSError, ValueError, text_format.ParseError):
        return {}
    return {model.name: model for model in config.model_config_list.config}


def _model_config(name: str, directory: Path, before: ModelConfig | None) -> ModelConfig:
    config = ModelConfig(name=name, base_path=str(directory), model_platform="tensorflow")
    versions = find_versions(directory) if directory.is_dir() else {}
    try:
        rollout = read_rollout(directory)
    except (OSError, ValueError):
        return config if before is None else before
    labels = _labels(directory, versions)
    held = rollout.loaded if rollout else {max(versions)} if labels else set()
    if held:
        config.version_labels.update(labels)
        config.model_version_policy.specific.versions.extend(sorted({*labels.values(), *held}))
    return config


def _labels(directory: Path, versions: Collection[int]) -> dict[str, int]:
    """Of versions that are there."""
    try:
        found = labels_in_force(directory)
    except (OSError, ValueError):  # a bad file takes no model out of service
        return {}
    return {label: version for label, version in found.items() if version in versions}
