"""What a user hands over, to arrays in the signature's dtypes. Pure but for reading the files."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from sluice.client.errors import BadRequest
from sluice.client.results import ModelMetadata
from sluice.wire.contract import TAKE_FILES
from sluice.wire.signature import TensorSpec
from sluice.wire.tensors import Array, string_array

if TYPE_CHECKING:
    from PIL.Image import Image

# A path, what is in the file, the open file, or a picture that Pillow has opened.
File = Union[str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, "Image"]
Value = ArrayLike | File | Sequence[File]
_BYTES = (bytes, bytearray, memoryview)

_FLOATS = tuple(np.dtype(each) for each in ("f2", "f4", "f8", ml_dtypes.bfloat16))
CHANNELS = (1, 3, 4)  # of an input that takes pictures as numbers
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow's, that PNG has too
_COLOUR_MODES = ("CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX")
_EXPECTED = (
    "give numbers (an array, or lists), text, bytes, the path of a file, an open file, a picture "
    "of Pillow's, or a list of these"
)


def holds_files(value: Value | None) -> bool:
    """Whether it is a file, or a list of them, and not numbers. A str is taken for a path here;
    for an input that takes text it is the text.

    >>> holds_files("three.png"), holds_files([b"GIF8...", "seven.png"]), holds_files([1.0, 2.0])
    (True, True, False)
    """
    # Of sequences these two alone: an array is one too, and looking at each of its numbers is slow.
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_file, value))
    return _is_file(value)


def takes_pictures(spec: TensorSpec) -> bool:
    """Whether an input is a batch of pictures as numbers: [N, H, W, C].

    >>> takes_pictures(TensorSpec("image", np.dtype("f4"), (None, 8, 8, 1)))
    True
    """
    return (
        not spec.is_string
        and spec.shape is not None
        and len(spec.shape) == 4
        and spec.shape[3] in CHANNELS
    )


def to_array(
    value: Value, spec: TensorSpec | None, signature: str, metadata: ModelMetadata
) -> Array:
    """The array of a value for the input `spec` (None: the model has no such input), in its dtype
    where no value changes by that but for a float's precision; [N] strings, one for each file.

    What does not fit is left for the server to refuse, in its words. Raises OSError for a file that
    cannot be read, BadRequest for what no tensor holds and for files where numbers are wanted.

    >>> pixels = TensorSpec("image", np.dtype("u1"), (None,))
    >>> nothing_else = ModelMetadata("m", 1, {})
    >>> to_array([7, 9], pixels, "serving_default", nothing_else).dtype
    dtype('uint8')
    >>> to_array([7, 999], pixels, "serving_default", nothing_else).dtype
    dtype('int64')
    """
    name = spec.name if spec else "an input"
    if not holds_files(value):
        array = _as_batch(_numbers(value, name), spec)
        return array if spec is None else cast_to(spec, array, metadata)
    files: Any = value if isinstance(value, list | tuple) else [value]
    if spec is None or spec.is_string or takes_pictures(spec):
        str_is_text = spec is not None and spec.is_string and signature not in TAKE_FILES
        return string_array(_content(file, name, str_is_text) for file in files)
    raise BadRequest(
        f'{metadata.name} takes numbers as "{name}" ({spec}) and was given files or text; its '
        f"signatures are: {', '.join(metadata.signatures)}"
    )


def cast_to(spec: TensorSpec, array: Array, metadata: ModelMetadata) -> Array:
    """The array in the dtype of `spec`, where no value changes but for a float's precision.

    >>> pixels = TensorSpec("image", np.dtype("u1"), (None,))
    >>> cast_to(pixels, np.array([7.0, 9.0]), ModelMetadata("m", 1, {}))
    array([7, 9], dtype=uint8)
    """
    if array.dtype.kind == "O" and not spec.is_string:
        raise BadRequest(
            f'{metadata.name} takes numbers as "{spec.name}" ({spec}) and was given text; its '
            f"signatures are: {', '.join(metadata.signatures)}"
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


def _is_file(value: object) -> bool:
    is_open = hasattr(value, "read") and not hasattr(value, "__array__")
    return isinstance(value, (str, os.PathLike, *_BYTES)) or is_open or _is_picture(value)


def _is_picture(value: object) -> bool:
    """Of Pillow's, which nobody who has none needs to have."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _content(file: Any, name: str, str_is_text: bool) -> bytes:
    if isinstance(file, _BYTES):
        return bytes(file)
    if isinstance(file, str) and str_is_text:
        return file.encode()
    if isinstance(file, str | os.PathLike):
        return Path(file).read_bytes()
    if _is_picture(file):
        return _png(file, name)
    content = file.read()
    if not isinstance(content, bytes):
        raise BadRequest(
            f'"{name}" was given a file that reads as {type(content).__name__}; open it with '
            'mode="rb"'
        )
    return content


def _png(image: "Image", name: str) -> bytes:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in _COLOUR_MODES:
        upright = upright.convert("RGB")
    if upright.mode not in _PNG_MODES:
        raise BadRequest(
            f'"{name}" was given a picture of the mode {upright.mode}, whose values are not 0 to '
            '255; give image.convert("L"), or an array'
        )
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _as_batch(array: Array, spec: TensorSpec | None) -> Array:
    """One picture, or several without the axis of their one channel, as a batch; all else as it
    is. [H, W] or [H, W, C] -> [1, H, W, C]; [N, H, W] -> [N, H, W, 1]."""
    if spec is None or not takes_pictures(spec) or array.ndim not in (2, 3):
        return array
    shapes = [(1, *array.shape), (*array.shape, 1), (1, *array.shape, 1)]
    return next((array.reshape(shape) for shape in shapes if spec.accepts(shape)), array)


def _numbers(value: Any, name: str) -> Array:
    """What numpy makes of it; strings as object arrays of bytes, text as UTF-8."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        said = str(error).partition(". The detected shape")[0]
        raise BadRequest(
            f'"{name}" was given a {type(value).__name__} that is no array: {said}'
        ) from error
    if array.dtype.kind == "S":
        return array.astype(object)
    if array.dtype.kind in "UO":
        return string_array(_bytes(item, name) for item in array.ravel().tolist()).reshape(
            array.shape
        )
    if array.dtype.kind in "mM":
        raise BadRequest(f'"{name}" was given dates or times ({array.dtype}); {_EXPECTED}')
    return array


def _bytes(item: object, name: str) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise BadRequest(f'"{name}" holds {item!r:.80}, a {type(item).__name__}; {_EXPECTED}')
