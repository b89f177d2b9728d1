"""What a model is tried on before it is published: the user's own pictures, or random ones."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sluice.pictures.decoding import Unreadable
from sluice.wire.tensors import Array
from training.adopting import guessing
from training.adopting.guessing import Tensor
from training.adopting.reading import reading
from training.data.dataset import Arrays, spaced
from training.data.sources.picture import read_picture
from training.errors import DataError
from training.inference import as_dtype
from training.publishing.signatures import ImageShapes
from training.publishing.trials import Trial, encode_png

TRIED = 16  # rows: each is run through every signature
_MOST = 2000  # samples that are read
_MOST_BYTES = 300_000_000  # of their pixels
_ANY_SIZE = 16  # of an axis that may have any; of an image, _ANY_SIDE
_ANY_SIDE = 64
# The second is the longest by far: whether its neighbour is padded to it is to be seen.
_WORDS = (b"a cat on a mat", b"one two three " * 20, b"", "Straße".encode())
_FILE = encode_png(np.zeros((_ANY_SIDE, _ANY_SIDE, 3), np.uint8))
_EXAMPLE = b""  # a tf.Example of nothing


def read_samples(
    paths: Sequence[Path], inputs: Mapping[str, Tensor], images: ImageShapes, most: int = TRIED
) -> Arrays:
    """The user's samples, at most `most` of them, from all over, by input name.

    paths: image files and folders of them for a model of one image; `.npz` files, with an array
    for each input, for any other. Raises DataError.
    """
    every = [file for path in paths for file in _files(path)]
    files = [every[place] for place in spaced(len(every), most)]
    if not files:
        raise DataError(f"no sample in {', '.join(map(str, paths))}: name image files or folders")
    if all(file.suffix.lower() == ".npz" for file in files):
        return _read_arrays(files, inputs, images, most)
    if len(inputs) == 1 and not images and guessing.input_kind(*inputs.values()) == guessing.IMAGE:
        raise DataError(
            "this model takes pictures of any size: say with --resize HEIGHT,WIDTH which one "
            "sample pictures are to have"
        )
    if [*images] != [*inputs] or len(inputs) != 1:
        raise DataError(
            f"this model takes {', '.join(inputs)}: give its samples as .npz files with an array "
            f"for each (numpy.savez('sample.npz', {', '.join(f'{name}=…' for name in inputs)}))"
        )
    [(name, shape)] = images.items()
    return {name: np.stack([read_image(file, shape) for file in files])}


def most_of(images: ImageShapes) -> int:
    """How many samples are read to learn what a model's pictures look like.

    >>> most_of({"image": (8, 8, 1)}), most_of({"image": (1000, 1000, 3)})
    (2000, 100)
    """
    row = sum(math.prod(shape) for shape in images.values())
    return max(TRIED, min(_MOST, _MOST_BYTES // max(1, row)))


def random_samples(inputs: Mapping[str, Tensor], images: ImageShapes) -> Arrays:
    """Pixels, numbers and words drawn with a fixed seed, two rows of each.

    >>> random_samples({"x": Tensor("x", (3,), "float32")}, {})["x"].shape
    (2, 3)
    """
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(256, size=(2, *images[name]), dtype=np.uint8)
        if name in images
        else _random(tensor, rng)
        for name, tensor in inputs.items()
    }


def random_trials(inputs: Mapping[str, Tensor]) -> Iterator[Trial]:
    """Requests for a signature of these inputs, whose answers nobody knows beforehand.

    What a string is to hold no signature says: words, a picture's file, a tf.Example in turn.

    >>> [trial.inputs["x"].shape for trial in random_trials({"x": Tensor("x", (3,), "int32")})]
    [(2, 3)]
    >>> len([*random_trials({"text": Tensor("text", (), "string")})])
    3
    """
    texts = any(each.dtype == "string" for each in inputs.values())
    for strings in (_WORDS, (_FILE,), (_EXAMPLE,)) if texts else ((),):
        rng = np.random.default_rng(0)
        rows = {name: _random(tensor, rng, strings) for name, tensor in inputs.items()}
        yield Trial(_cast(rows, inputs), {})


def read_rows(
    paths: Sequence[Path], signatures: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Trial]:
    """By signature, of those whose inputs the user's `.npz` files hold: their rows as a request.

    Raises DataError.

    >>> read_rows([Path("cat.png")], {})
    Traceback (most recent call last):
    training.errors.DataError: cat.png is no .npz file, which is what the samples of a SavedModel \
are, with an array for each input
    """
    files = [file for path in paths for file in _files(path)]
    for file in files:
        if file.suffix.lower() != ".npz":
            raise DataError(
                f"{file} is no .npz file, which is what the samples of a SavedModel are, with an "
                f"array for each input"
            )
    held = {name for file in files for name in _names_in(file)}
    found = {
        signature: Trial(_cast(_read_arrays(files, inputs, {}, TRIED), inputs), {})
        for signature, inputs in signatures.items()
        if {*inputs} <= held
    }
    if not found:
        wanted = "; ".join(f"{each}: {', '.join(inputs)}" for each, inputs in signatures.items())
        raise DataError(
            f"the samples hold {', '.join(sorted(held))}, and no signature takes that ({wanted})"
        )
    return found


def _names_in(file: Path) -> list[str]:
    with reading(file, DataError), np.load(file, allow_pickle=False) as stored:
        return [*stored]


def _cast(rows: Arrays, inputs: Mapping[str, Tensor]) -> Arrays:
    return {name: as_dtype(array, inputs[name].dtype) for name, array in rows.items()}


def _random(tensor: Tensor, rng: np.random.Generator, strings: Sequence[bytes] = _WORDS) -> Array:
    side = _ANY_SIDE if len(tensor.shape) == 3 else _ANY_SIZE
    shape = (2, *(side if size is None else size for size in tensor.shape))
    if tensor.dtype == "string":
        return np.resize(np.array(strings, object), shape)
    if tensor.dtype == "bool" or "int" in tensor.dtype:
        return rng.integers(2, size=shape)
    return rng.standard_normal(shape).astype(np.float32)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            each for each in path.rglob("*") if each.is_file() and not each.name.startswith(".")
        )
    return [path]


def read_image(file: Path, shape: tuple[int, int, int]) -> Array:
    """uint8 [H, W, C]. Raises DataError.

    >>> read_image(Path("no such.png"), (8, 8, 1))
    Traceback (most recent call last):
    training.errors.DataError: sample no such.png cannot be read as a picture: No such file or \
directory
    """
    try:
        return read_picture(file, shape)
    except Unreadable as error:
        raise DataError(f"sample {file} cannot be read as a picture: {error}") from error


def _read_arrays(
    files: Sequence[Path], inputs: Mapping[str, Tensor], images: ImageShapes, most: int
) -> Arrays:
    rows: dict[str, list[Array]] = {name: [] for name in inputs}
    for file in files:
        with (
            reading(file, DataError),
            file.open("rb") as content,
            np.load(content, allow_pickle=False) as stored,
        ):
            if missing := [name for name in inputs if name not in stored]:
                raise DataError(f"{file} holds {', '.join(stored)}; missing: {', '.join(missing)}")
            found = {
                name: _as_rows(stored[name], f"{file}: {name}", tensor, pixels=name in images)
                for name, tensor in inputs.items()
            }
        counts = {name: len(array) for name, array in found.items()}
        if len({*counts.values()}) > 1 or not all(counts.values()):
            raise DataError(f"{file} holds rows of {counts}: expected as many of each, and one")
        for name, array in found.items():
            rows[name].append(array)
    return {name: np.concatenate(each)[:most] for name, each in rows.items()}


def _as_rows(array: Array, what: str, tensor: Tensor, *, pixels: bool) -> Array:
    """[N, ...]: one row without its batch axis becomes a batch of one."""
    if array.ndim == len(tensor.shape):
        array = array[np.newaxis]
    fits = array.ndim == len(tensor.shape) + 1 and all(
        wanted in (None, size) for wanted, size in zip(tensor.shape, array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ",".join("?" if size is None else str(size) for size in tensor.shape)
        raise DataError(f"{what} is {list(array.shape)}, expected [N,{wanted}]")
    if tensor.dtype == "string":
        return np.array(
            [value if isinstance(value, bytes) else str(value).encode() for value in array.ravel()],
            object,
        ).reshape(array.shape)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise DataError(f"{what} is {array.dtype}: expected finite numbers alone")
    return _as_pixels(array, what) if pixels else array


def _as_pixels(array: Array, what: str) -> Array:
    """uint8 of what is 0 to 255."""
    low, high = array.min(initial=0), array.max(initial=0)
    whole = np.array_equal(array, np.rint(array))
    if low < 0 or high > 255 or (high <= 1 and not whole):
        raise DataError(
            f"{what} is {low:.3g} to {high:.3g}: expected pixels of 0 to 255, which the published "
            f"graph prepares for the model"
        )
    return np.rint(array).astype(np.uint8)
