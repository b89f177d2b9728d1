"""Files that are cut short, garbled or cannot be read: one sentence each, and no traceback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

import training
from service.publish import BadLabels, publish, read_labels
from training.adopting import loading, reading, reading_hdf5, recognising, samples, saved_models
from training.adopting.adopt import Wishes
from training.adopting.guessing import Tensor
from training.errors import CannotAdopt, DataError, TrainingError

SHAPE = (4, 4, 1)
PLACES = 8  # where each file is spoilt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    image = keras.Input(SHAPE, name="image")
    output = layers.Dense(2, activation="softmax")(layers.Flatten()(image))
    model = keras.Model(image, output)
    model.save(folder / "pets.keras")
    model.save(folder / "pets.h5")
    model.export(folder / "exported", verbose=False)
    rng = np.random.default_rng(0)
    np.savez(folder / "rows.npz", image=rng.integers(256, size=(2, *SHAPE)))
    np.savez_compressed(folder / "small.npz", image=rng.integers(256, size=(2, *SHAPE)))
    return folder


def spoilt(content: bytes, suffix: str) -> Iterator[bytes]:
    """Cut short; with bytes in between that were others; with a hole of zeros."""
    rng = np.random.default_rng(len(content))
    for place in np.linspace(0, len(content) - 1, PLACES).astype(int):
        yield content[:place]
        if suffix == ".h5":
            continue  # it may be read for ever, which takes seconds to tell: see below
        noise = rng.bytes(8)
        yield content[:place] + noise + content[place + 8 :]
        yield content[:place] + bytes(64) + content[place + 64 :]


def each_spoilt(source: Path, inside: str, folder: Path) -> Iterator[Path]:
    """`source`, a file or a directory with the file `inside`, spoilt in one way after another."""
    content = (source / inside).read_bytes()
    for number, bytes_ in enumerate(spoilt(content, source.suffix)):
        copy = folder / f"{number}{source.suffix}"
        if source.is_dir():
            shutil.copytree(source, copy)
        (copy / inside).write_bytes(bytes_)
        yield copy


def only_ours(read: Callable[[Path], object], paths: Iterator[Path]) -> list[str]:
    """What was said of those that could not be read; any other error fails the test."""
    said = []
    for path in paths:
        try:
            read(path)
        except TrainingError as error:
            said.append(str(error))
    return said


def load(path: Path) -> None:
    loading.load(path, None, allow_code=False)


def serve(path: Path) -> None:
    signatures = saved_models.signatures_of(path, Wishes())
    copied = path.with_suffix(".copy")
    requests = saved_models.requests_of(path, signatures, [])
    saved_models.copy(path, copied)
    saved_models.ask(path, copied, requests)


def read_sample(path: Path) -> None:
    samples.read_samples([path], {"image": Tensor("image", SHAPE, "float32")}, {"image": SHAPE})


@pytest.mark.parametrize(
    ("name", "inside", "read", "least"),
    [
        ("pets.keras", "", load, 15),
        ("pets.h5", "", load, PLACES),
        ("exported", "saved_model.pb", serve, 8),
        ("exported", "variables/variables.index", serve, 8),
        ("exported", "variables/variables.data-00000-of-00001", serve, 8),
        ("rows.npz", "", read_sample, 12),
        ("small.npz", "", read_sample, 12),
    ],
)
def test_of_a_damaged_file_only_our_errors_come_out(
    whole: Path, tmp_path: Path, name: str, inside: str, read: Callable[[Path], object], least: int
) -> None:
    read(whole / name) if not inside else None
    said = only_ours(read, each_spoilt(whole / name, inside, tmp_path))
    assert len(said) >= least
    for line in said:
        assert "\n" not in line
        assert str(tmp_path) in line


def endless(whole: Path, path: Path) -> Path:
    """An HDF5 file with a hole in the heap of its strings, or a `.keras` archive with one in it."""
    content = (whole / "pets.h5").read_bytes()
    hole = content.index(b"GCOL") + 16
    content = content[:hole] + bytes(64) + content[hole + 64 :]
    if path.suffix == ".h5":
        path.write_bytes(content)
        return path
    with zipfile.ZipFile(whole / "pets.keras") as good, zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", good.read("config.json"))
        archive.writestr("model.weights.h5", content)
    return path


@pytest.mark.parametrize("name", ["pets.h5", pytest.param("pets.keras", marks=pytest.mark.slow)])
def test_a_file_that_hdf5_would_read_for_ever_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reading, "_SECONDS", 2)
    path = endless(whole, tmp_path / name)
    with pytest.raises(CannotAdopt, match=f"{path} .*had not ended after 2 s of computing"):
        load(path)


def readers(parent: int) -> list[str]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    lines = [Path("/proc", each, "cmdline").read_text() for each in children]
    return [line for line in lines if "reading_hdf5" in line]


@pytest.mark.slow
def test_control_c_ends_the_reading(whole: Path, tmp_path: Path) -> None:
    path = endless(whole, tmp_path / "pets.h5")
    command = [sys.executable, "-P", "-m", "service.cli", "publish", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as publisher:
        while not readers(publisher.pid):
            assert publisher.poll() is None
            time.sleep(0.01)
        publisher.send_signal(signal.SIGINT)
        _, said = publisher.communicate()
    assert publisher.returncode == 1
    assert "Aborted" in said
    assert "had not ended" not in said


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "is empty: copy it again"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs"),
        (lambda path: path.write_text("<!DOCTYPE html>\n<html>"), "a web page"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "damaged or cut short"),
        (lambda path: os.mkfifo(path), "a device or a pipe"),
        (lambda path: path.symlink_to(path), "there is no"),
        # A file that even root may open and not read.
        (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read: Input/output error"),
    ],
)
def test_what_only_has_a_models_name_is_told_apart(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "pets.keras"
    make(path)
    with pytest.raises(CannotAdopt, match=words):
        training.publish(path, model_repository=tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.full((2, *SHAPE), np.nan)}, "finite numbers"),
        ({"image": np.full((2, *SHAPE), 0.5)}, "0.5: expected pixels of 0 to 255"),
        ({"image": np.full((2, *SHAPE), -1.0)}, "expected pixels of 0 to 255"),
        ({"image": np.full((2, *SHAPE), "a")}, "expected finite numbers"),
        ({"image": np.zeros((0, *SHAPE))}, "rows of {'image': 0}"),
        ({"image": np.zeros((2, 3))}, r"is \[2, 3\], expected \[N,4,4,1\]"),
        ({"image": np.array([{}], object)}, "damaged or cut short"),
        ({"picture": np.zeros((2, *SHAPE))}, "missing: image"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_sample(tmp_path / "rows.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Straße\nB\n".encode("latin-1"), "is no UTF-8 text (byte 4)"),
        ("a\nb\n".encode("utf-16"), "is no UTF-8 text"),
        (b"\n \n", "is empty: expected one label on each line"),
        (None, "cannot be read (Is a directory)"),
        (b"a\x1b[31m\nb\n", r"label 1, 'a\x1b[31m', has a control character"),
    ],
)
def test_a_labels_file_that_cannot_be_read_is_named_with_the_reason(
    whole: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "labels"
    path.mkdir() if content is None else path.write_bytes(content)
    told = CliRunner().invoke(
        publish, ["--preprocess=raw", f"--labels={path}", str(whole / "pets.keras")]
    )
    assert told.exit_code == 2
    assert words in told.output
    assert "Traceback" not in told.output


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("labels.txt", "\ufeffcat\r\n dog \r\n\r\nn01\tfish\x0b\r\n", ["cat", "dog", "n01\tfish"]),
        ("labels.csv", "1,dog\n0, cat, big\n", ["cat, big", "dog"]),
        ("labels.tsv", "0\tcat\n1;dog\n", ["cat", "dog"]),
        ("labels.csv", "1,dog\n2,cat\n", ["1,dog", "2,cat"]),
        ("labels.csv", "0,dog\ncat\n", ["0,dog", "cat"]),
        ("labels.csv", "0,dog\n0,cat\n", ["0,dog", "0,cat"]),
        ("labels.json", '["cat", "dog"]', ["cat", "dog"]),
        ("labels.json", '\ufeff{"1": "dog", "0": "cat"}', ["cat", "dog"]),
        ("class_indices.JSON", '{"dog": 1, "cat": 0}', ["cat", "dog"]),
        ("labels.json", '{"1": "cat", "2": "dog"}', "does not name classes 0, 1, 2"),
        ("labels.json", '{"cat": 0, "dog": 0}', "does not name classes 0, 1, 2"),
        ("labels.json", '{"0": ["n01", "cat"]}', "does not name classes 0, 1, 2"),
        ("labels.json", '"cat"', "does not name classes 0, 1, 2"),
        ("labels.json", "[]", "does not name classes 0, 1, 2"),
        ("labels.json", '["cat"', "is no JSON"),
        ("labels.json", "[" * 100_000, "is no JSON"),
    ],
)
def test_labels_come_in_the_files_that_programs_leave(
    tmp_path: Path, name: str, content: str, labels: list[str] | str
) -> None:
    (tmp_path / name).write_text(content, newline="")
    if isinstance(labels, list):
        assert read_labels(tmp_path / name) == labels
        return
    with pytest.raises(BadLabels, match=f"{name} {labels}"):
        read_labels(tmp_path / name)


def test_the_command_says_it_in_one_line_too(whole: Path, tmp_path: Path) -> None:
    for name, inside in (("pets.h5", ""), ("exported", "saved_model.pb")):
        copy = tmp_path / name
        shutil.copytree(whole / name, copy) if inside else shutil.copy(whole / name, copy)
        (copy / inside).write_bytes((copy / inside).read_bytes()[:300])
        told = CliRunner().invoke(publish, [str(copy), f"--model-repository={tmp_path}"])
        assert told.exit_code == 1
        assert told.output.startswith("Error: ")
        assert "damaged or cut short" in told.output
        assert told.output.count("\n") == 1


def too_large(stored: h5py.File) -> None:
    stored.create_dataset("weights", (10**6, 10**6), "f4", chunks=(10, 10))


def in_another_file(stored: h5py.File) -> None:
    stored.create_dataset("weights", (10,), "u1", external=[("/etc/passwd", 0, 10)])


def linked_to_another(stored: h5py.File) -> None:
    stored.create_group("dense")["weights"] = h5py.ExternalLink("/etc/passwd", "/weights")


def made_of_another(stored: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "weights", (10,))
    stored.create_virtual_dataset("weights", layout)


def test_words_of_another_file_are_not_read(whole: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(whole / "pets.keras") as good:
        config, weights = json.loads(good.read("config.json")), good.read("model.weights.h5")
    lookup = {"name": "words", "vocabulary": "/etc/passwd"}
    described = {"module": "keras.layers", "class_name": "StringLookup", "config": lookup}
    more = {"registered_name": None, "name": "words", "inbound_nodes": []}
    config["config"]["layers"].insert(1, described | more)
    with zipfile.ZipFile(tmp_path / "pets.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    with pytest.raises(CannotAdopt, match="a layer's words from another file"):
        load(tmp_path / "pets.keras")


def test_a_broken_picture_is_named_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match=r"cat\.png cannot be read as a picture: \w"):
        read_sample(tmp_path / "cat.png")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (too_large, "would be 4,000,000,000,000 bytes in memory"),
        (in_another_file, "takes numbers from another file of this machine (/etc/passwd)"),
        (linked_to_another, "takes numbers from another file of this machine (/etc/passwd)"),
        (made_of_another, "takes numbers from another file of this machine (/etc/passwd)"),
    ],
)
def test_a_file_that_is_to_do_harm_is_refused(
    tmp_path: Path, harm: Callable[[h5py.File], None], words: str
) -> None:
    with h5py.File(tmp_path / "pets.h5", "w") as stored:
        stored.attrs["model_config"] = "{}"
        harm(stored)
    with pytest.raises(CannotAdopt, match=re.escape(words)):
        load(tmp_path / "pets.h5")


def test_an_archive_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_hdf5, "_ANYWAY", 100_000)
    with zipfile.ZipFile(tmp_path / "pets.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * 1_000_000)
    with pytest.raises(CannotAdopt, match=r"config\.json would be 1,000,000 bytes in memory"):
        load(tmp_path / "pets.keras")
    with zipfile.ZipFile(tmp_path / "pets.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", *map(str, range(9))):
            archive.writestr(name, " " * 50_000)
    with pytest.raises(CannotAdopt, match=r"pets\.keras would be 500,000 bytes in memory"):
        load(tmp_path / "pets.keras")
    monkeypatch.setattr(recognising, "_MOST_CONFIG", 40_000)
    with zipfile.ZipFile(tmp_path / "pets.keras", "w") as archive:
        archive.writestr("config.json", " " * 50_000)
    with pytest.raises(CannotAdopt, match=r"its config\.json has 50,000 bytes"):
        load(tmp_path / "pets.keras")


def test_words_that_are_one_a_million_times_fill_no_memory(tmp_path: Path) -> None:
    """A word takes 16 bytes of the file: the address at which its letters are."""
    path, words = tmp_path / "pets.h5", 200_000
    with h5py.File(path, "w") as stored:
        stored.attrs["model_config"] = "{}"
        stored.create_dataset("words", (words,), h5py.string_dtype())[0] = "x" * 1_000_000
    with h5py.File(path) as stored:
        place = stored["words"].id.get_offset()
    content = path.read_bytes()
    path.write_bytes(
        content[:place] + content[place : place + 16] * words + content[place + 16 * words :]
    )
    with pytest.raises(CannotAdopt, match=r"pets\.h5 is damaged or cut short .*memory"):
        load(path)


def test_a_file_is_read_as_what_it_is_whatever_its_name(whole: Path, tmp_path: Path) -> None:
    for kind, name in (("pets.h5", "pets.keras"), ("pets.keras", "pets"), ("pets.h5", "best.tf")):
        shutil.copy(whole / kind, tmp_path / name)
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("target", "words"),
    [("/dev/zero", "is no file but a device"), (".", "is a link to a directory")],
)
def test_a_saved_model_without_an_end_is_not_copied(
    whole: Path, tmp_path: Path, target: str, words: str
) -> None:
    source = shutil.copytree(whole / "exported", tmp_path / "exported")
    (source / "assets" / "odd").symlink_to(target)
    with pytest.raises(CannotAdopt, match=words):
        serve(source)
