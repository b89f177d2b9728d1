"""The Open Inference Protocol's raw tensors, as its clients and servers both need them. Pure.

In the binary tensor extension a tensor's little-endian bytes follow the JSON, whose length the
header JSON_LENGTH gives. A string (BYTES) is its length in four bytes, then itself.
"""

import struct
from typing import Any

import ml_dtypes
import numpy as np

from sluice.wire.tensors import Array, string_array

JSON_LENGTH = "Inference-Header-Content-Length"

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(object),
}
# The field of gRPC's InferTensorContents for each; FP16 and BF16 have none and travel raw.
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


class RawTensorError(ValueError):
    """Bytes that do not hold the tensor they should: what was `expected`, and what was `got`."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = expected, got


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name; numpy's own where the protocol has none (complex, quantized).

    >>> datatype_of(np.dtype("f4")), datatype_of(np.dtype(object)), datatype_of(np.dtype("c8"))
    ('FP32', 'BYTES', 'COMPLEX64')
    """
    return _NAMES.get(dtype, dtype.name.upper())


def decode_raw(
    raw: bytes | memoryview, dtype: np.dtype[Any], most_strings: int | None = None
) -> Array:
    """The elements in one dimension, read-only. Raises RawTensorError, for more than `most_strings`
    too: 4 bytes that travel are a whole object here.

    >>> decode_raw(bytes([1, 0, 2, 0]), np.dtype("<u2"))
    array([1, 2], dtype=uint16)
    """
    if dtype.kind == "O":
        return _split_strings(raw, most_strings)
    if len(raw) % dtype.itemsize:
        raise RawTensorError(
            f"a multiple of {dtype.itemsize} bytes, as {datatype_of(dtype)} takes",
            f"{len(raw)} bytes",
        )
    if dtype.kind == "b" and len(raw) and np.frombuffer(raw, np.uint8).max() > 1:
        raise RawTensorError("0 or 1 in each byte of a BOOL", "another number")
    return np.frombuffer(raw, dtype)


def encode_raw(array: Array) -> bytes:
    r"""The elements in row-major order.

    >>> encode_raw(np.array([[1, 2]], "<u2"))
    b'\x01\x00\x02\x00'
    """
    return _join_strings(array) if array.dtype.kind == "O" else array.tobytes()


def _split_strings(raw: bytes | memoryview, most: int | None = None) -> Array:
    r"""BYTES as they travel, to an object array [N] of bytes. Raises RawTensorError, for more than
    `most` too.

    >>> _split_strings(b"\3\0\0\0abc\0\0\0\0")
    array([b'abc', b''], dtype=object)
    """
    strings: list[bytes] = []
    start = 0
    while start < len(raw):
        if len(strings) == most:
            raise RawTensorError(f"at most {most} strings", "more")
        if start + 4 > len(raw):
            raise RawTensorError("a string's length in four bytes", f"{len(raw) - start} bytes")
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4
        if start + length > len(raw):
            raise RawTensorError(f"a string of {length} bytes", f"{len(raw) - start} bytes")
        strings.append(bytes(raw[start : start + length]))
        start += length
    return string_array(strings)


def _join_strings(array: Array) -> bytes:
    r"""BYTES as they travel, of an array of bytes in any shape.

    >>> _join_strings(string_array([b"abc", b""]))
    b'\x03\x00\x00\x00abc\x00\x00\x00\x00'
    """
    return b"".join(struct.pack("<I", len(string)) + string for string in array.ravel())
