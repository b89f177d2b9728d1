"""Outputs as numpy's own files; strings become its fixed-width S."""

import io
import zipfile
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from service.gateway.errors import NotAcceptable
from sluice.wire.tensors import Array


def encode_npy(outputs: Mapping[str, Array]) -> bytes:
    """The single output. Raises NotAcceptable where there are several."""
    if len(outputs) != 1:
        raise NotAcceptable(
            f"The outputs {', '.join(sorted(outputs))} do not fit one .npy file; "
            "accept application/x-npz or application/json"
        )
    buffer = io.BytesIO()
    np.save(buffer, _native(next(iter(outputs.values()))), allow_pickle=False)
    return buffer.getvalue()


def encode_npz(outputs: Mapping[str, Array]) -> bytes:
    """All outputs by name, not compressed: float noise does not shrink."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # np.savez has no room for an output called file
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _native(array), allow_pickle=False)
    return buffer.getvalue()


def _native(array: Array) -> Array:
    if array.dtype.kind == "O":
        return array.astype(np.bytes_)
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array
