"""numpy's own files as request bodies: .npy for a single input, .npz for several by name."""

import io
import lzma
import math
import struct
import zipfile
import zlib
from tokenize import TokenError  # what numpy lets through of a header that breaks off

import numpy as np

from service.gateway.errors import MalformedRequest, PayloadTooLarge, UnknownInput
from service.gateway.query import TfsQuery
from service.gateway.signature import DEFAULT_SIGNATURE, Signatures
from sluice.wire.tensors import Array

# What zipfile lets through of archives that lie about themselves (found by fuzzing).
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    LookupError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)
NPY, NPZ = "application/x-npy", "application/x-npz"


def decode_npy(body: bytes, signatures: Signatures, signature_name: str | None = None) -> TfsQuery:
    """One array for the signature's only input."""
    signature = signatures.get(signature_name or DEFAULT_SIGNATURE)
    if len(signature.inputs) != 1:
        raise UnknownInput(
            f'Signature "{signature.name}" has the inputs '
            f"{', '.join(signature.inputs)}; send them as {NPZ}"
        )
    return TfsQuery(signature, {name: read_npy(body, "the body") for name in signature.inputs})


def decode_npz(
    body: bytes, signatures: Signatures, limit_bytes: int, signature_name: str | None = None
) -> TfsQuery:
    """Arrays by input name; PayloadTooLarge where they unpack to more than `limit_bytes`."""
    signature = signatures.get(signature_name or DEFAULT_SIGNATURE)
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if sum(member.file_size for member in archive.infolist()) > limit_bytes:
                raise PayloadTooLarge(limit_bytes)
            inputs = {
                member.removesuffix(".npy"): read_npy(archive.read(member), member)
                for member in archive.namelist()
            }
    except _BROKEN_ARCHIVE as error:
        raise MalformedRequest(f"The body is no .npz file: {error}") from None
    return TfsQuery(signature, inputs)


def read_npy(data: bytes, what: str) -> Array:
    """The array of a .npy file; its header is held against its size before anything is allocated.

    Pickled objects are refused: reading one runs whatever code it holds.
    """
    stream = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = _header(stream)
    except (ValueError, SyntaxError, TypeError, EOFError, TokenError) as error:
        raise MalformedRequest(f"{what} is no .npy file: {error}") from None
    rest = memoryview(data)[stream.tell() :]
    if dtype.hasobject:
        raise MalformedRequest(
            f"{what} holds Python objects, which are not read; strings are numpy's S or U"
        )
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise MalformedRequest(f"{what} declares {dtype} {list(shape)} and holds {len(rest)} bytes")
    array = np.frombuffer(rest, dtype) if dtype.itemsize else np.empty(shape, dtype)
    return _strings(array.reshape(shape, order="F" if fortran_order else "C"))


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} is not read")


def _strings(array: Array) -> Array:
    """numpy's fixed-width text as objects of bytes, anything else as it is in little-endian."""
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    if array.dtype.kind == "S":
        return array.astype(object)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
