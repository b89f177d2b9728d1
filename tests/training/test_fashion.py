"""Where Fashion-MNIST is looked for, with toy files in its format."""

import gzip

import keras
import numpy as np
import pytest

from training.data.load import load
from training.data.sources import fashion
from training.errors import DataError, DataUnavailable
from training.recipes import RECIPES

RECIPE = RECIPES["fashion"]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 100), ("t10k", 20)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return tmp_path


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    def offline():
        raise OSError("URL fetch failure")

    monkeypatch.delenv(fashion.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", offline)


def test_the_official_test_images_are_held_out(folder):
    dataset = fashion.load(RECIPE, folder)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (90, 10, 20)
    assert dataset.input_shape == (28, 28, 1)
    assert dataset.heads["label"].labels[9] == "Ankle boot"
    np.testing.assert_array_equal(dataset.test.targets["label"], np.arange(20) % 10)
    assert dataset.train.inputs["image"].dtype == np.uint8


@pytest.mark.usefixtures("nowhere")
def test_the_variable_and_debians_folder_are_tried_in_turn(folder, monkeypatch):
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", folder)
    assert len(fashion.load(RECIPE, None).test) == 20
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", folder / "absent")
    monkeypatch.setenv(fashion.FOLDER_VARIABLE, str(folder))
    assert len(fashion.load(RECIPE, None).test) == 20


@pytest.mark.usefixtures("nowhere")
def test_without_any_of_them_the_message_names_all_three():
    with pytest.raises(DataUnavailable) as caught:
        fashion.load(RECIPE, None)
    for way in (
        "dataset-fashion-mnist",
        "--data",
        fashion.FOLDER_VARIABLE,
        "keras.datasets",
        "URL fetch failure",
    ):
        assert way in str(caught.value)


@pytest.mark.usefixtures("nowhere")
def test_a_folder_without_the_files_is_an_error_and_no_download(tmp_path):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        fashion.load(RECIPE, tmp_path)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("error", [Exception("URL fetch failure"), EOFError(), KeyError("x")])
def test_whatever_keras_raises_the_message_is_the_same(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(DataUnavailable, match="give this machine internet access"):
        fashion.load(RECIPE, None)


@pytest.mark.parametrize(
    "raw",
    [b"no gzip", gzip.compress(b""), gzip.compress(bytes(40))[:-9]],
    ids=["no gzip", "nothing", "cut off"],  # gzip writes the time: workers would differ
)
def test_a_spoilt_file_is_named(folder, raw):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(raw)
    with pytest.raises(DataError, match=r"cannot read .*train-labels"):
        fashion.load(RECIPE, folder)


def test_a_folder_of_its_files_is_no_folder_of_pictures(folder, tmp_path):
    (tmp_path / "notes").mkdir()
    assert load(RECIPE, folder, tmp_path).heads["label"].labels[0] == "T-shirt/top"
