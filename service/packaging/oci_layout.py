"""A version as an OCI image, in a directory: https://github.com/opencontainers/image-spec.

The same version gives the same bytes, whoever packages it and when: names in order, no times, no
owners, and a layer that is not compressed, as weights hardly shrink and zlib's bytes are its
release's affair.
"""

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sluice.wire.signed_files import NotAsSigned, entries, open_file

ARCHITECTURES = ("amd64", "arm64")  # of an image without a base: its one layer is everybody's
_SPEC = "application/vnd.oci.image"
_INDEX, _MANIFEST = f"{_SPEC}.index.v1+json", f"{_SPEC}.manifest.v1+json"
_CONFIG, _LAYER = f"{_SPEC}.config.v1+json", f"{_SPEC}.layer.v1.tar"
_REF = "org.opencontainers.image.ref.name"
_EPOCH = "1970-01-01T00:00:00Z"
_FOLDER = "models"  # where KServe's modelcars have it

Descriptor = dict[str, Any]


class CannotPackage(Exception):
    """A version, a base or a place that no image can be made of or in: which, and why."""


class Base(NamedTuple):
    """What an image stands on, for one architecture: its configuration and its layers."""

    config: dict[str, Any]
    layers: list[Descriptor]


def write_layout(version: Path, model: str, number: int, output: Path, base: Path | None) -> str:
    """Write `output`, a directory that is not there yet, whole; give the image's digest.

    The image has `models/<number>/` with all that is in `version`, on top of what is in the layout
    `base`, for each architecture of that. Its tag is the number.
    Raises CannotPackage, OSError.
    """
    if output.exists():
        raise CannotPackage(f"{output} is there already: name a directory that is not")
    if ":" in str(output):
        raise CannotPackage(f"{output}: expected no colon, as oci:DIRECTORY:TAG has those")
    if number < 0:
        raise CannotPackage(f"version {number}: no image's tag begins with a minus")
    beside = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.absolute().parent))
    try:
        digest = _write(_Layout(beside), version, model, number, base)
        beside.chmod(0o755)
        beside.rename(output)
        return digest
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(layout: "_Layout", version: Path, model: str, number: int, base: Path | None) -> str:
    layer = layout.add_layer(version, f"{_FOLDER}/{number}")
    annotations = {
        "org.opencontainers.image.title": model,
        "org.opencontainers.image.version": str(number),
    }
    manifests = []
    for below in _read_bases(base, layout) if base else map(_nothing, ARCHITECTURES):
        config = _on_top(below.config, layer["digest"], annotations)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": layout.add_json(config, _CONFIG),
            "layers": [*below.layers, layer],
            "annotations": annotations,
        }
        platform = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
        manifests.append(layout.add_json(manifest, _MANIFEST) | {"platform": platform})
    index = layout.add_json(_index(manifests) | {"annotations": annotations}, _INDEX)
    layout.write("index.json", _index([index | {"annotations": {_REF: str(number)}}]))
    layout.write("oci-layout", {"imageLayoutVersion": "1.0.0"})
    return str(index["digest"])


def _index(manifests: list[Descriptor]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}


def _nothing(architecture: str) -> Base:
    empty: dict[str, Any] = {"rootfs": {"type": "layers", "diff_ids": []}}
    return Base({"architecture": architecture, "os": "linux", **empty}, [])


def _on_top(config: dict[str, Any], layer: str, labels: dict[str, str]) -> dict[str, Any]:
    """The configuration with one more layer, which is not compressed, so that its digest is that of
    what is in it. What it need not have may be null, as Go writes it."""
    below = config.get("config") or {}
    history = [
        *(config.get("history") or []),
        {"created": _EPOCH, "created_by": "sluice package"},
    ]
    return config | {
        "config": below | {"Labels": {**(below.get("Labels") or {}), **labels}},
        "rootfs": {"type": "layers", "diff_ids": [*config["rootfs"]["diff_ids"], layer]},
        "history": history,
    }


def _read_bases(directory: Path, layout: "_Layout") -> Iterator[Base]:
    """Each image in a layout, whose layers are copied. Raises CannotPackage."""
    try:
        pending = json.loads((directory / "index.json").read_bytes())["manifests"]
        found = False
        while pending:
            each = pending.pop(0)
            if each.get("platform", {}).get("architecture") == "unknown":  # an attestation
                continue
            content = _read_json(directory, each["digest"])
            if "manifests" in content:
                pending += content["manifests"]
                continue
            for layer in content["layers"]:
                layout.copy(_blob(directory, layer["digest"]), layer["digest"])
            yield _base(_read_json(directory, content["config"]["digest"]), content["layers"])
            found = True
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CannotPackage(f"{directory} is no layout of an OCI image: {error!r}") from None
    if not found:
        raise CannotPackage(f"{directory} holds no image")


def _base(config: dict[str, Any], layers: list[Descriptor]) -> Base:
    """Raises ValueError for what has no files, as a signature or a list of materials."""
    if len(config["rootfs"]["diff_ids"]) != len(layers):
        raise ValueError("an image whose configuration has other layers")
    return Base(config, layers)


def _read_json(directory: Path, digest: str) -> Any:
    raw = _blob(directory, digest).read_bytes()
    if f"sha256:{hashlib.sha256(raw).hexdigest()}" != digest:
        raise ValueError(f"{digest} is damaged")
    return json.loads(raw)


def _blob(directory: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not value.isalnum():
        raise ValueError(f"digest {digest!r}")
    return directory / "blobs" / algorithm / value


class _Layout:
    """The files of a layout that is being written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)

    def write(self, name: str, content: object) -> None:
        (self._directory / name).write_bytes(_json(content))

    def add_json(self, content: object, media_type: str) -> Descriptor:
        raw = _json(content)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        _blob(self._directory, digest).write_bytes(raw)
        return {"mediaType": media_type, "digest": digest, "size": len(raw)}

    def add_layer(self, version: Path, name: str) -> Descriptor:
        path = self._directory / "layer"
        with path.open("w+b") as file:
            _write_tar(file, version, name)
            file.seek(0)
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            size = file.seek(0, 2)
        path.rename(_blob(self._directory, digest))
        return {"mediaType": _LAYER, "digest": digest, "size": size}

    def copy(self, blob: Path, digest: str) -> None:
        with blob.open("rb") as file:
            if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != digest:
                raise ValueError(f"{blob} is damaged")
        shutil.copyfile(blob, _blob(self._directory, digest))


def _write_tar(file: BinaryIO, version: Path, name: str) -> None:
    above = [parent for parent in reversed(Path(name).parents) if parent.name]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in [*map(str, above), name]:
            tar.addfile(_entry(folder, None))
        try:
            for file_name, is_directory in sorted(entries(version), key=_by_parts):
                within = f"{name}/{file_name}"
                if is_directory:
                    tar.addfile(_entry(within, None))
                    continue
                with open_file(version / file_name) as content:
                    size = os.fstat(content.fileno()).st_size
                    tar.addfile(_entry(within, size), content)
        except NotAsSigned as error:
            raise CannotPackage(str(error)) from None


def _by_parts(entry: tuple[str, bool]) -> list[str]:
    """A directory before what is in it."""
    return entry[0].split("/")


def _entry(name: str, size: int | None) -> tarfile.TarInfo:
    """Of a file of `size` bytes, or of a directory; of nobody's, and of no time."""
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if size is None else tarfile.REGTYPE
    entry.mode, entry.size = (0o755, 0) if size is None else (0o644, size)
    return entry


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
