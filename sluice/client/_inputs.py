"""What a user hands over, to arrays in the signature's dtypes. Pure but for reading the files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from sluice.client.errors import BadRequest
from sluice.client.results import ModelMetadata, TensorSpec
from sluice.wire.tensors import Array

ENCODED, SERVING_DEFAULT = "encoded", "serving_default"  # docs/contract.md

Encoded = str | os.PathLike[str] | bytes | bytearray | memoryview
Value = ArrayLike | Encoded | Sequence[Encoded]
_ENCODED = (str, os.PathLike, bytes, bytearray, memoryview)

_FLOATS = tuple(np.dtype(each) for each in ("f2", "f4", "f8", ml_dtypes.bfloat16))


def is_encoded(value: Value | None) -> bool:
    """Whether it is a file or bytes, or a list of them, and not numbers."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, _ENCODED) for each in value)
    return isinstance(value, _ENCODED)


def read(value: Value) -> Array:
    """The array of a value: [N] strings of files or bytes, else what numpy makes of it.

    Raises OSError for a file that cannot be read.
    """
    if not is_encoded(value):
        return _bytes_for_text(np.asarray(value))
    items: Any = value if isinstance(value, list | tuple) else [value]
    return strings(
        [
            Path(item).read_bytes() if isinstance(item, str | os.PathLike) else bytes(item)
            for item in items
        ]
    )


def strings(items: Sequence[bytes]) -> Array:
    """[N] objects; numpy's own strings lose zero bytes at the end."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def fit(array: Array, spec: TensorSpec, name: str, metadata: ModelMetadata) -> Array:
    """The array in the dtype of `spec`, where no value changes but for a float's precision.

    What does not fit is left for the server to refuse, in its words. Raises BadRequest for bytes
    where numbers are wanted.
    """
    if array.dtype.kind == "O" and spec.dtype.kind != "O":
        raise BadRequest(
            f'{metadata.name} takes "{name}" as {spec}, and got files or bytes; '
            f"its signatures are: {', '.join(metadata.signatures)}"
        )
    if array.dtype == spec.dtype or spec.dtype.kind == "O":
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
    return strings([_bytes(item) for item in array.ravel().tolist()]).reshape(array.shape)


def _bytes(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise BadRequest(f"{item!r:.80} is neither a number, a string nor bytes")
