"""What an image's environment holds, and what its lists of materials say of that."""

import json
from pathlib import Path

from packaging.utils import canonicalize_name

Packages = set[tuple[str, str]]  # names and versions


def packages_in(root: Path) -> Packages:
    """root: the image's."""
    (packages,) = root.glob("opt/sluice/lib/python3.*/site-packages")
    found = [
        each.name.removesuffix(".dist-info").split("-") for each in packages.glob("*.dist-info")
    ]
    return {(canonicalize_name(name), version) for name, version in found}


def listed_in(root: Path, name: str) -> Packages:
    """name: of a list in CycloneDX."""
    document = json.loads((root / "opt/sluice" / name).read_text())
    assert (document["bomFormat"], "timestamp" in document["metadata"]) == ("CycloneDX", True)
    return {(canonicalize_name(each["name"]), each["version"]) for each in document["components"]}
