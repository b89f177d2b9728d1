"""numpy's own files as request bodies: .npy for a single input, .npz for several by name."""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from tokenize import TokenError  # what numpy lets through of a header that breaks off

import numpy as np

from service.gateway.decode.foreign import door
from service.gateway.decode.magic import NPZ
from service.gateway.decode.shapes import MAX_STRINGS, shape_fault
from service.gateway.decode.values import cast_as_json
from service.gateway.errors import (
    MalformedRequest,
    PayloadTooLarge,
    UnknownInput,
    did_you_mean,
    shown,
)
from service.gateway.query import TfsQuery
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array

# What zipfile lets through of archives that lie about themselves (found by fuzzing).
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    LookupError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)
_MAX_MEMBERS = 1000
_CENTRAL_ENTRY = b"PK\1\2"  # stands before each member's entry in the directory
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy.savez writes
_KINDS = "biufcSU"  # booleans, numbers and text


@door("The .npy file")
def decode_npy(body: bytes, signatures: Signatures, signature_name: str | None = None) -> TfsQuery:
    """One array for the signature's only input."""
    signature = signatures.get(signature_name or DEFAULT_SIGNATURE)
    if len(signature.required) != 1:
        raise UnknownInput(
            f'Signature "{signature.name}" has the inputs '
            f"{', '.join(signature.required)}; send them as {NPZ}"
        )
    array = read_npy(body, "The body")
    return _query(signature, dict.fromkeys(signature.required, array))


@door("The .npz file")
def decode_npz(
    body: bytes, signatures: Signatures, limit_bytes: int, signature_name: str | None = None
) -> TfsQuery:
    """Arrays by input name; PayloadTooLarge where they unpack to more than `limit_bytes`."""
    signature = signatures.get(signature_name or DEFAULT_SIGNATURE)
    if body.count(_CENTRAL_ENTRY) > _MAX_MEMBERS:  # zipfile makes an object of each, unasked
        raise MalformedRequest(
            f"The .npz file has more than {_MAX_MEMBERS} members; expected one for each input"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > limit_bytes:
                raise PayloadTooLarge(limit_bytes)
            inputs: dict[str, Array] = {}
            for member in members:
                name = _input_name(member.filename, signature)
                if name in inputs:
                    raise MalformedRequest(f'The .npz file has the member "{name}.npy" twice')
                inputs[name] = read_npy(_unpack(archive, member), f"{name}.npy")
    except _BROKEN_ARCHIVE as error:
        raise MalformedRequest(
            f"The body cannot be read as a .npz file: {shown(str(error))}; expected what "
            "numpy.savez writes"
        ) from error
    return _query(signature, inputs)


def _query(signature: Signature, arrays: Mapping[str, Array]) -> TfsQuery:
    inputs = {name: cast_as_json(array, signature.inputs[name]) for name, array in arrays.items()}
    return TfsQuery(signature, inputs, is_file=True)


def _input_name(member: str, signature: Signature) -> str:
    name = member.removesuffix(".npy")
    if name == member or name not in signature.inputs:
        raise UnknownInput(
            f'Signature "{signature.name}" has no input for the member "{shown(member)}"; expected '
            f"an input's name and .npy{did_you_mean(name, signature.inputs)}"
        )
    return name


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member of the size that the directory says: a stream can hold more than that, and zipfile
    unpacks all of it unless it is told how much to read."""
    if member.compress_type not in _PACKINGS:
        raise MalformedRequest(
            f"{shown(member.filename)} is packed by a method that is not read; expected what "
            "numpy.savez or numpy.savez_compressed writes"
        )
    with archive.open(member) as stream:
        return stream.read(member.file_size + 1)  # one more, so that the end and its sum are met


def read_npy(data: bytes, what: str) -> Array:
    """The array of a .npy file; its header is held against its size before anything is allocated.

    `what` starts the message of a MalformedRequest. Pickled objects are refused: reading one runs
    whatever code it holds.
    """
    stream = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = _header(stream)
    except (ValueError, SyntaxError, TypeError, EOFError, TokenError, RecursionError) as error:
        raise MalformedRequest(
            f"{what} cannot be read as a .npy file: {shown(str(error))}; expected what numpy.save "
            "writes"
        ) from error
    _check_dtype(dtype, what)
    if fault := shape_fault(shape):
        raise MalformedRequest(f"{what} declares a shape that no array has: {fault}")
    rest = memoryview(data)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise MalformedRequest(
            f"{what} declares {dtype} {list(shape)}, which take "
            f"{math.prod(shape) * dtype.itemsize} bytes, and holds {len(rest)} bytes"
        )
    array = np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran_order else "C")
    return _plain(array, what)


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} is not read")


def _check_dtype(dtype: np.dtype, what: str) -> None:
    if dtype.hasobject:
        raise MalformedRequest(
            f"{what} holds Python objects, which are not read; write strings as numpy's S or U"
        )
    if dtype.kind not in _KINDS or dtype.subdtype or not dtype.itemsize:
        raise MalformedRequest(
            f"{what} holds elements of the dtype {shown(str(dtype))}; expected booleans, numbers "
            "or strings of at least one byte (of bfloat16 and its kin, send float32)"
        )


def _plain(array: Array, what: str) -> Array:
    """Strings as objects of bytes, anything else as it is in little-endian."""
    if array.dtype.kind in "SU":
        return _strings(array, what)
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise MalformedRequest(f"{what} holds booleans that are neither 0 nor 1")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _strings(array: Array, what: str) -> Array:
    """Objects of bytes. np.char.encode would hold every string three times over."""
    if array.size > MAX_STRINGS:
        raise MalformedRequest(
            f"{what} holds {array.size} strings, and at most {MAX_STRINGS} are read; send fewer "
            "rows in one request"
        )
    try:
        strings = array.astype(object)
        if array.dtype.kind == "U":
            for index, text in enumerate(strings.flat):
                strings.flat[index] = text.encode()
    except (ValueError, SystemError) as error:  # no character, or half a surrogate pair
        raise MalformedRequest(
            f"{what} holds text that is no Unicode: {shown(str(error))}"
        ) from error
    return strings
