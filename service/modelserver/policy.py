"""Which versions of a model should be served: directories, version policies. Pure decisions."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from sluice.wire.protos.serving_pb2 import FileSystemStoragePathSourceConfig, ModelConfig

VersionPolicy = FileSystemStoragePathSourceConfig.ServableVersionPolicy

# What TensorFlow Serving reads as a 64-bit integer; `1.tmp` and `v2` are no versions.
_VERSION = re.compile(r"-?[0-9]{1,19}")


def find_versions(base_path: Path) -> dict[int, Path]:
    """The version directories under `base_path`; raises OSError where it cannot be listed."""
    with os.scandir(base_path) as entries:
        return {
            number: Path(entry.path)
            for entry in entries
            if _VERSION.fullmatch(entry.name)
            and entry.is_dir()
            and -(2**63) <= (number := int(entry.name)) < 2**63
        }


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


def find_models(directory: Path) -> dict[str, ModelConfig]:
    """A model for each sub-directory of `directory` that holds at least one version directory."""
    with os.scandir(directory) as entries:
        bases = [
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    return {
        base.name: ModelConfig(name=base.name, base_path=str(base))
        for base in bases
        if find_versions(base)
    }


def fingerprint(directory: Path) -> frozenset[tuple[str, int, int]]:
    """The files under a version directory with their sizes and times: changes while copied."""
    paths = [Path(parent, name) for parent, _, names in os.walk(directory) for name in names]
    return frozenset(found for path in paths if (found := _identify(path)))


def _identify(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:  # removed since it was listed
        return None
    return str(path), stat.st_size, stat.st_mtime_ns
