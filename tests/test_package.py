"""`sluice package`: the image that a version becomes, byte for byte."""

import hashlib
import json
import os
import shutil
import tarfile

import pytest
from click.testing import CliRunner

from service.cli import main


@pytest.fixture
def repository(tmp_path):
    for number in (1, 2):
        version = tmp_path / "repository/digits" / str(number)
        (version / "variables").mkdir(parents=True)
        (version / "assets").mkdir()
        (version / "saved_model.pb").write_text(f"graph {number}")
        (version / "variables/variables.index").write_text("index")
        (version / f"{'long' * 40}.png").write_text("a name that old tar has no room for")
    return tmp_path / "repository"


def package(repository, output, *words):
    """(status, what it says)"""
    command = [
        "package",
        "digits",
        *words,
        f"--output={output}",
        f"--model-repository={repository}",
    ]
    result = CliRunner().invoke(main, [*map(str, command)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def content(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def blob(layout, descriptor):
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def images(layout):
    """By architecture, (manifest, configuration) of a layout's one index."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    index = json.loads(blob(layout, entry).read_text())
    found = {}
    for each in index["manifests"]:
        manifest = json.loads(blob(layout, each).read_text())
        config = json.loads(blob(layout, manifest["config"]).read_text())
        assert each["platform"] == {"architecture": config["architecture"], "os": "linux"}
        found[config["architecture"]] = manifest, config
    return found


def test_the_same_version_gives_the_same_bytes(repository, tmp_path):
    assert package(repository, tmp_path / "one")[0] == 0
    copy = shutil.copytree(repository, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1_000_000, 1_000_000))
    package(copy, tmp_path / "other")
    package(copy, tmp_path / "older", 1)
    assert content(tmp_path / "one") == content(tmp_path / "other") != content(tmp_path / "older")


def test_a_blob_is_called_by_what_is_in_it(repository, tmp_path):
    _, said = package(repository, tmp_path / "image")
    for path in (tmp_path / "image/blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    (entry,) = json.loads((tmp_path / "image/index.json").read_text())["manifests"]
    assert f"digits 2 is in {tmp_path / 'image'} as {entry['digest']}\n" in said
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "2"}


def test_its_layer_is_the_version_for_every_architecture(repository, tmp_path):
    package(repository, tmp_path / "image")
    found = images(tmp_path / "image")
    assert set(found) == {"amd64", "arm64"}
    (layer,) = found["amd64"][0]["layers"]
    assert found["arm64"][0]["layers"] == [layer]
    assert found["arm64"][1]["rootfs"]["diff_ids"] == [layer["digest"]]
    with tarfile.open(blob(tmp_path / "image", layer)) as tar:
        entries = tar.getmembers()
        files = {each.name: tar.extractfile(each).read() for each in entries if each.isfile()}
    assert {(each.uid, each.mtime) for each in entries} == {(0, 0)}
    version = content(repository / "digits/2")
    assert files == {f"models/2/{name}": written for name, written in version.items()}
    assert "models/2/assets" in {each.name for each in entries if each.isdir()}


def test_it_stands_on_a_base(repository, tmp_path):
    package(repository, tmp_path / "base", 1)
    status, _ = package(repository, tmp_path / "image", 2, f"--base={tmp_path / 'base'}")
    assert status == 0
    (below,) = images(tmp_path / "base")["arm64"][0]["layers"]
    manifest, config = images(tmp_path / "image")["arm64"]
    assert manifest["layers"][0] == below and len(manifest["layers"]) == 2
    assert config["rootfs"]["diff_ids"] == [each["digest"] for each in manifest["layers"]]
    assert len(config["history"]) == 2
    assert blob(tmp_path / "image", below).exists()


def test_what_cannot_be_packaged_is_told_and_leaves_nothing(repository, tmp_path):
    (tmp_path / "there").mkdir()
    assert "is there already" in package(repository, tmp_path / "there")[1]
    assert "no version 7" in package(repository, tmp_path / "image", 7)[1]
    base = f"--base={repository}"
    assert "is no layout of an OCI image" in package(repository, tmp_path / "image", base)[1]
    package(repository, tmp_path / "base", 1)
    for path in (tmp_path / "base/blobs/sha256").iterdir():
        if b"graph 1" in path.read_bytes():
            path.write_bytes(path.read_bytes()[:-1])
    damaged = f"--base={tmp_path / 'base'}"
    assert "is damaged" in package(repository, tmp_path / "image", damaged)[1]
    (repository / "digits/2/link").symlink_to("saved_model.pb")
    assert "nobody packages links" in package(repository, tmp_path / "image")[1]
    (repository / "digits/2/saved_model.pb").unlink()
    assert package(repository, tmp_path / "image")[0] == 1
    assert {each.name for each in tmp_path.iterdir()} == {"repository", "there", "base"}
