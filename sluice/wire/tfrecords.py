"""TFRecord files: records one after the other, each with its length and two checksums.

TensorFlow writes and reads them as well, at the price of loading TensorFlow. The form is that of
https://www.tensorflow.org/tutorials/load_data/tfrecord: length (8 bytes), its checksum (4), the
record, its checksum (4), little-endian.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

import google_crc32c

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_HEAD = _LENGTH.size + _CHECKSUM.size
SUFFIX = ".tfrecord"


class BadRecord(ValueError):
    """Bytes that are no TFRecord, or not all of one."""


def frame(record: bytes) -> bytes:
    r"""A record as it stands in a file.

    >>> frame(b"hello")[:8], len(frame(b"hello"))
    (b'\x05\x00\x00\x00\x00\x00\x00\x00', 21)
    """
    return b"".join((_head(len(record)), record, _checksum(record)))


def read_frames(file: BinaryIO) -> Iterator[bytes]:
    """The records of a file that is open at its start.

    Raises BadRecord at the first that is not whole, with its number and where it begins: the last
    one of a file that somebody is writing, or has been killed while he wrote, is such a one.

    >>> import io
    >>> list(read_frames(io.BytesIO(frame(b"one") + frame(b"two"))))
    [b'one', b'two']
    """
    size, start, number = file.seek(0, 2), file.seek(0), 1
    while start < size:
        where = f"record {number}, at byte {start}"
        head = file.read(_HEAD)
        if len(head) < _HEAD:
            raise BadRecord(f"{where}, is cut off")
        packed = head[: _LENGTH.size]
        if _checksum(packed) != head[_LENGTH.size :]:
            raise BadRecord(f"{where}, is damaged, or this is no TFRecord file")
        (length,) = _LENGTH.unpack(packed)
        if start + _HEAD + length + _CHECKSUM.size > size:
            raise BadRecord(f"{where}, is cut off")
        record = file.read(length)
        if _checksum(record) != file.read(_CHECKSUM.size):
            raise BadRecord(f"{where}, is damaged")
        yield record
        start, number = file.tell(), number + 1


@lru_cache(1024)
def _head(size: int) -> bytes:
    length = _LENGTH.pack(size)
    return length + _checksum(length)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned and shifted: records may hold checksums themselves."""
    crc = google_crc32c.value(data)
    return _CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
