"""Outputs as numpy's own files; strings become its fixed-width S."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from service.gateway.dtypes import NUMPY, SMALL_INTEGERS, not_carried
from service.gateway.errors import NotAcceptable
from sluice.wire.tensors import Array


def encode_npy(outputs: Mapping[str, Array]) -> bytes:
    """The single output. Raises NotAcceptable where there are several, or where numpy cannot carry
    it."""
    if len(outputs) != 1:
        raise NotAcceptable(
            f"The outputs {', '.join(sorted(outputs))} do not fit one .npy file; "
            "accept application/x-npz or application/json"
        )
    buffer = io.BytesIO()
    ((name, array),) = outputs.items()
    np.save(buffer, _native(array, name), allow_pickle=False)
    return buffer.getvalue()


def encode_npz(outputs: Mapping[str, Array]) -> bytes:
    """All outputs by name, not compressed: float noise does not shrink."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # np.savez has no room for an output called file
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _native(array, name), allow_pickle=False)
    return buffer.getvalue()


def _native(array: Array, name: str) -> Array:
    """In a dtype that numpy has by itself and that holds every element."""
    if reason := not_carried(array.dtype, NUMPY):
        raise NotAcceptable(f'Output "{name}": {reason}')
    if array.dtype.kind == "O":
        return _fixed_width(array, name)
    if array.dtype in SMALL_INTEGERS:
        return array.astype(np.int8)
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _fixed_width(strings: Array, name: str) -> Array:
    if any(string.endswith(b"\0") for string in strings.ravel()):
        raise NotAcceptable(
            f'Output "{name}" holds strings that end in a zero byte, which numpy\'s lose; accept '
            "application/json"
        )
    return strings.astype(np.bytes_)
