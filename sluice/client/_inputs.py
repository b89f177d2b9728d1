"""What a user hands over, to arrays in the signature's dtypes. Pure but for reading the files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from sluice.client.errors import BadRequest
from sluice.client.results import ModelMetadata
from sluice.wire.signature import TensorSpec
from sluice.wire.tensors import Array, string_array

File = str | os.PathLike[str] | bytes | bytearray | memoryview  # its path, or what is in it
Value = ArrayLike | File | Sequence[File]
_FILE_TYPES = (str, os.PathLike, bytes, bytearray, memoryview)

_FLOATS = tuple(np.dtype(each) for each in ("f2", "f4", "f8", ml_dtypes.bfloat16))


def holds_files(value: Value | None) -> bool:
    """Whether it is a file, by its path or its bytes, or a list of them, and not numbers.

    >>> holds_files("three.png"), holds_files([b"GIF8...", "seven.png"]), holds_files([1.0, 2.0])
    (True, True, False)
    """
    # Of sequences these two alone: an array is one too, and looking at each of its numbers is slow.
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, _FILE_TYPES) for each in value)
    return isinstance(value, _FILE_TYPES)


def to_array(value: Value) -> Array:
    """The array of a value: [N] strings, one for each file, else what numpy makes of it.

    Raises OSError for a file that cannot be read, BadRequest for what no tensor holds.

    >>> to_array([b"one file", b"another"])
    array([b'one file', b'another'], dtype=object)
    >>> to_array([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if not holds_files(value):
        return _bytes_for_text(np.asarray(value))
    files: Any = value if isinstance(value, list | tuple) else [value]
    return string_array(
        Path(file).read_bytes() if isinstance(file, str | os.PathLike) else bytes(file)
        for file in files
    )


def cast_to(spec: TensorSpec, array: Array, metadata: ModelMetadata) -> Array:
    """The array in the dtype of `spec`, where no value changes but for a float's precision.

    What does not fit is left for the server to refuse, in its words. Raises BadRequest for files
    where numbers are wanted.

    >>> pixels = TensorSpec("image", np.dtype("u1"), (None,))
    >>> cast_to(pixels, np.array([7, 9]), ModelMetadata("m", 1, {})).dtype
    dtype('uint8')
    >>> cast_to(pixels, np.array([7, 999]), ModelMetadata("m", 1, {})).dtype
    dtype('int64')
    """
    if array.dtype.kind == "O" and not spec.is_string:
        raise BadRequest(
            f'{metadata.name} takes numbers as "{spec.name}" ({spec}) and was given files or text; '
            f"its signatures are: {', '.join(metadata.signatures)}"
        )
    if array.dtype == spec.dtype or spec.is_string:
        return array
    if array.dtype.kind not in "biuf" and array.dtype not in _FLOATS:
        return array
    if spec.dtype in _FLOATS:
        return array.astype(spec.dtype)
    with np.errstate(invalid="ignore"):  # NaN has no integer, so it is not equal below
        cast = array.astype(spec.dtype)
    return cast if np.array_equal(cast, array) else array


def _bytes_for_text(array: Array) -> Array:
    """Strings as object arrays of bytes, text as UTF-8; anything else as it is."""
    if array.dtype.kind == "S":
        return array.astype(object)
    if array.dtype.kind not in "UO":
        return array
    return string_array(_bytes(item) for item in array.ravel().tolist()).reshape(array.shape)


def _bytes(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise BadRequest(
        f"an input holds {item!r:.80}, a {type(item).__name__}; "
        "give numbers, text, bytes or the paths of files"
    )
