"""`sluice package`: the image that a version becomes, byte for byte."""

import hashlib
import json
import os
import re
import shlex
import shutil
import tarfile

import pytest
from click.testing import CliRunner

from service.cli import main
from service.packaging.oci_layout import _entry


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
    assert "which is no file" in package(repository, tmp_path / "image")[1]
    (repository / "digits/2/saved_model.pb").unlink()
    assert package(repository, tmp_path / "image")[0] == 1
    assert {each.name for each in tmp_path.iterdir()} == {"repository", "there", "base"}


def test_what_is_no_file_is_packaged_neither(repository, tmp_path):
    version = repository / "digits/2"
    os.mkfifo(version / "pipe")
    assert "'pipe', which is no file" in package(repository, tmp_path / "image")[1]
    (version / "pipe").unlink()
    (version / "assets/shadow").symlink_to("/etc/passwd")
    assert "'assets/shadow', which is no file" in package(repository, tmp_path / "image")[1]
    assert not (tmp_path / "image").exists()


def test_names_of_any_bytes_are_kept(repository, tmp_path):
    names = ["two\nlines", os.fsdecode(b"\xff"), "übung", "back\\slash"]
    for name in names:
        (repository / "digits/2" / name).write_text(name, errors="surrogateescape")
    assert package(repository, tmp_path / "image")[0] == 0
    (layer,) = images(tmp_path / "image")["amd64"][0]["layers"]
    with tarfile.open(blob(tmp_path / "image", layer)) as tar:
        assert {f"models/2/{name}" for name in names} <= set(tar.getnames())


def test_a_file_of_more_than_8_gigabytes_has_its_size_in_the_layer():
    entry = _entry("models/2/variables", 9 << 30)
    header = entry.tobuf(tarfile.PAX_FORMAT)
    assert tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict").size == 0
    assert f" size={9 << 30}\n".encode() in header


@pytest.mark.parametrize("name", ["My Pets", "Übung__2.", "a-b"])
def test_it_tells_how_to_push_in_words_that_a_registry_and_a_shell_take(repository, tmp_path, name):
    (repository / "digits").rename(repository / name)
    output = tmp_path / "an image"
    command = ["package", name, f"--output={output}", f"--model-repository={repository}"]
    said = CliRunner().invoke(main, command).output.splitlines()[-1]
    _, _, words = said.partition(":  ")
    *_, layout, target = shlex.split(words)
    assert layout == f"oci:{output}:2"
    # https://github.com/opencontainers/distribution-spec: a repository's name
    assert re.fullmatch("docker://REGISTRY/[a-z0-9]+([.]|_|__|-+[a-z0-9]+)*", target)


def test_places_and_versions_that_no_tag_can_have_are_refused(repository, tmp_path):
    assert "expected no colon" in package(repository, tmp_path / "an:image")[1]
    (repository / "digits/2").rename(repository / "digits/-2")
    shutil.rmtree(repository / "digits/1")
    assert "no image's tag begins with a minus" in package(repository, tmp_path / "image")[1]


def flip(layout, descriptor):
    path = blob(layout, descriptor)
    path.write_bytes(path.read_bytes().replace(b'"os":"linux"', b'"os":"minux"'))


def test_a_base_with_one_byte_another_is_damaged(repository, tmp_path):
    package(repository, tmp_path / "base", 1)
    manifest, _ = images(tmp_path / "base")["arm64"]
    flip(tmp_path / "base", manifest["config"])
    status, said = package(repository, tmp_path / "image", f"--base={tmp_path / 'base'}")
    assert status == 1 and "is damaged" in said


def write_base(directory, index, *contents):
    """A layout of these contents; `index` makes index.json of their descriptors."""
    (directory / "blobs/sha256").mkdir(parents=True)
    described = []
    for content in contents:
        raw = json.dumps(content).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (directory / "blobs/sha256" / digest).write_bytes(raw)
        described.append({"digest": f"sha256:{digest}", "size": len(raw)})
    (directory / "index.json").write_text(json.dumps(index(*described)))


@pytest.mark.parametrize(
    "base",
    [
        (lambda: [],),
        (lambda: {"manifests": ["x"]},),
        (lambda: {"manifests": [{"digest": "sha256:../../../secret"}]},),
        (lambda: {"manifests": [{"digest": "md5:00"}]},),
        (lambda each: {"manifests": [each]}, {"layers": []}),
        (lambda each: {"manifests": [each]}, []),
    ],
)
def test_a_base_that_is_no_image_is_told(repository, tmp_path, base):
    write_base(tmp_path / "base", *base)
    status, said = package(repository, tmp_path / "image", f"--base={tmp_path / 'base'}")
    assert status == 1 and "is no layout of an OCI image" in said


def test_a_base_may_leave_out_what_go_writes_as_null(repository, tmp_path):
    package(repository, tmp_path / "base", 1)
    _, config = images(tmp_path / "base")["amd64"]
    config |= {"config": None, "history": None, "rootfs": {"type": "layers", "diff_ids": []}}
    raw = json.dumps(config).encode()
    manifest = {"config": {"digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}, "layers": []}
    write_base(tmp_path / "nulls", lambda each, _: {"manifests": [each]}, manifest, config)
    status, said = package(repository, tmp_path / "image", f"--base={tmp_path / 'nulls'}")
    assert status == 0, said
    assert images(tmp_path / "image")["amd64"][1]["config"]["Labels"]
