"""Images as they are pushed, in a directory: https://github.com/opencontainers/image-spec."""

import json
from pathlib import Path
from typing import Any

Descriptor = dict[str, Any]


def name_in(layout: Path) -> Descriptor:
    """What the layout's only name stands for: an image, or one for each architecture."""
    (named,) = json.loads((layout / "index.json").read_text())["manifests"]
    return named


def read(layout: Path, descriptor: Descriptor) -> dict[str, Any]:
    return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())


def architectures(layout: Path) -> list[tuple[str, str]]:
    """Of each image behind the name: whom it is for as the name says, and as its own configuration
    does."""
    images = read(layout, name_in(layout))["manifests"]
    return sorted(
        (each["platform"]["architecture"], config_of(layout, each)["architecture"])
        for each in images
    )


def config_of(layout: Path, image: Descriptor) -> dict[str, Any]:
    return read(layout, read(layout, image)["config"])
