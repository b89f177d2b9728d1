"""Which models and versions should be served: directories, version policies. No state.

What a model and a version are on disk is asked of sluice.wire.versions.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.modelserver.errors import InvalidArgument
from sluice.wire.protos.serving_pb2 import FileSystemStoragePathSourceConfig, ModelConfig
from sluice.wire.versions import survey

VersionPolicy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


def index_configs(configs: Iterable[ModelConfig]) -> dict[str, ModelConfig]:
    """The configs by name. Raises InvalidArgument for those that TensorFlow Serving refuses too."""
    by_name: dict[str, ModelConfig] = {}
    for config in configs:
        if config.name in by_name:
            raise InvalidArgument(
                f"Illegal to list model {config.name} multiple times in config list"
            )
        if not config.base_path.startswith("/"):
            raise InvalidArgument(
                f"Expected model {config.name} to have an absolute path or URI; "
                f"got base_path()={config.base_path}"
            )
        if config.model_platform not in ("", "tensorflow"):
            raise InvalidArgument(
                f"Model {config.name} requests unsupported platform {config.model_platform}"
            )
        by_name[config.name] = config
    return by_name


def choose_versions(policy: VersionPolicy, present: Mapping[int, Path]) -> dict[int, Path]:
    """Those of the present versions that the policy asks for; the default is the newest one."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return dict(present)
    if choice == "specific":
        wanted = set(policy.specific.versions)
        return {version: path for version, path in present.items() if version in wanted}
    count = max(policy.latest.num_versions, 1)
    return {version: present[version] for version in sorted(present, reverse=True)[:count]}


def find_models(directory: Path) -> tuple[dict[str, ModelConfig], dict[str, str]]:
    """A model for each sub-directory of `directory` that holds at least one version directory.

    Then, by name, why others are none. Raises OSError where `directory` cannot be listed.
    """
    models, others = survey(directory)
    configs = {name: ModelConfig(name=name, base_path=str(base)) for name, base in models.items()}
    return configs, others


def fingerprint(directory: Path) -> frozenset[tuple[str, int, int]]:
    """The files under a version directory with their sizes and times: changes while copied."""
    paths = [Path(parent, name) for parent, _, names in os.walk(directory) for name in names]
    return frozenset(found for path in paths if (found := _identify(path)))


def _identify(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:  # removed since it was listed, or a link to itself
        return None
    return str(path), stat.st_size, stat.st_mtime_ns
