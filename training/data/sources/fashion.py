"""Fashion-MNIST (Zalando Research, MIT): 60,000 + 10,000 images of garments, [28, 28, 1]."""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from sluice.wire.tensors import Array
from training.data.dataset import Dataset, Split
from training.data.heads import Classes
from training.errors import DataError, DataUnavailable
from training.recipes import Recipe

FOLDER_VARIABLE = "SLUICE_FASHION_MNIST_DIR"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_VALIDATION = 5_000

_Labelled = tuple[Array, Array]


def load(recipe: Recipe, data: Path | None) -> Dataset:
    """The official test images are `test`; 5,000 of the others, drawn by seed, `validation`."""
    (images, labels), (test_images, test_labels), origin = _read(data)
    rows = np.random.default_rng(recipe.seed).permutation(len(labels))
    held_out = min(_VALIDATION, len(labels) // 10)
    return Dataset(
        _part(images, labels, rows[held_out:]),
        _part(images, labels, rows[:held_out]),
        _part(test_images, test_labels, np.arange(len(test_labels))),
        heads={"label": Classes(_LABELS)},
        origin=origin,
    )


def is_source_folder(folder: Path) -> bool:
    """Whether any of the four files is in it, so that it is no folder of pictures."""
    return any(folder.glob("*-ubyte*"))


def _part(images: Array, labels: Array, rows: Array) -> Split:
    return Split({"image": images[rows][..., np.newaxis]}, {"label": labels[rows]})


def _read(data: Path | None) -> tuple[_Labelled, _Labelled, str]:
    """(train, test, origin) from the first place that has it; raises DataUnavailable."""
    named = data or os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else DEBIAN_FOLDER
    if named or folder.is_dir():
        return _read_part(folder, "train"), _read_part(folder, "t10k"), f"Fashion-MNIST, {folder}"
    return *_download(), "Fashion-MNIST, keras.datasets"


def _download() -> tuple[_Labelled, _Labelled]:
    import keras

    try:
        train, test = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises bare ones: no network, half a file, a proxy's page
        raise DataUnavailable(
            f"Fashion-MNIST is not here. Either install Debian's package dataset-fashion-mnist "
            f"(it fills {DEBIAN_FOLDER}), or name a folder with its four *-ubyte.gz files by "
            f"--data or {FOLDER_VARIABLE}, or give this machine internet access for "
            f"keras.datasets, which said: {error or type(error).__name__}"
        ) from error
    return (train[0], train[1].astype(np.int64)), (test[0], test[1].astype(np.int64))


def _read_part(folder: Path, part_name: str) -> _Labelled:
    images = _read_idx(folder / f"{part_name}-images-idx3-ubyte.gz")
    return images, _read_idx(folder / f"{part_name}-labels-idx1-ubyte.gz").astype(np.int64)


def _read_idx(path: Path) -> Array:
    """IDX of unsigned bytes, gzipped: a magic number, one big-endian length an axis, the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
        shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(
            f"cannot read {path}: {error}; Fashion-MNIST is four files, "
            f"{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz"
        ) from error
