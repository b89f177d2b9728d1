"""The packed numbers of a serialized message, read in pieces. Pure.

Protobuf and numpy hold Python's lock while they read: of 60 MB of varints, which are 60 million
numbers, for more than a second, in which no other thread of the process runs. Between pieces
others do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from sluice.wire.varint import head

PIECE_BYTES = 1 << 18  # some 5 ms of varints
_MAX_VARINT = 10  # bytes
_DTYPES: dict[int, np.dtype[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: np.dtype("<f8"),
    FieldDescriptor.TYPE_FLOAT: np.dtype("<f4"),
    FieldDescriptor.TYPE_INT32: np.dtype("<i4"),
    FieldDescriptor.TYPE_INT64: np.dtype("<i8"),
    FieldDescriptor.TYPE_UINT32: np.dtype("<u4"),
    FieldDescriptor.TYPE_UINT64: np.dtype("<u8"),
    FieldDescriptor.TYPE_BOOL: np.dtype("?"),
}


@dataclass(frozen=True)
class Packed:
    r"""All the values of the repeated field `name` of a message of `kind`: the parts that they came
    in, where they lie, each without its tag and length.

    >>> from sluice.wire.protos.tensorflow_pb2 import TensorProto
    >>> packed = Packed(TensorProto, "int64_val", np.dtype("<i8"), (memoryview(b"\xac\x02\x07"),))
    >>> packed.count(), packed.read(2)
    (2, array([300,   7]))
    """

    kind: type[Message]
    name: str
    dtype: np.dtype[Any]
    parts: tuple[memoryview, ...]

    @property
    def nbytes(self) -> int:
        """What they take in the message."""
        return sum(map(len, self.parts))

    @property
    def is_whole(self) -> bool:
        """No part ends within a number."""
        if self._is_fixed:
            return not any(len(part) % self.dtype.itemsize for part in self.parts)
        return all(part[-1] < 0x80 for part in self.parts if part)

    def count(self) -> int:
        """How many they are, found before any is read."""
        if self._is_fixed:
            return self.nbytes // self.dtype.itemsize
        # A number ends with its first byte below 0x80.
        return sum(
            int(np.count_nonzero(np.frombuffer(part[at : at + PIECE_BYTES], np.uint8) < 0x80))
            for part in self.parts
            for at in range(0, len(part), PIECE_BYTES)
        )

    def read(self, count: int) -> NDArray[Any]:
        """The first `count` of them (not more than there are) in the field's dtype, read-only where
        they lie in the message's own bytes. Raises DecodeError."""
        if self._is_fixed:
            data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            return np.frombuffer(data, self.dtype, count)
        number = self.kind.DESCRIPTOR.fields_by_name[self.name].number
        values, found = np.empty(count, self.dtype), 0
        for piece in self._pieces():
            if found >= count:
                break
            message = self.kind.FromString(head(number, len(piece)) + piece)
            read = np.asarray(getattr(message, self.name))[: count - found]
            values[found : found + len(read)] = read
            found += len(read)
        return values

    @property
    def _is_fixed(self) -> bool:
        return self.dtype.kind == "f"

    def _pieces(self) -> Iterator[bytes]:
        """Each with whole numbers."""
        for part in self.parts:
            start = 0
            while start < len(part):
                end = min(start + PIECE_BYTES, len(part))
                longest = min(end + _MAX_VARINT, len(part))
                while end < longest and part[end - 1] >= 0x80:
                    end += 1
                yield bytes(part[start:end])
                start = end


def packed_fields(kind: type[Message]) -> Mapping[int, tuple[str, np.dtype[Any]]]:
    """The fields of a message whose values may come packed and can be read here: by number, the
    name and the dtype.

    >>> from sluice.wire.protos.tensorflow_pb2 import TensorProto
    >>> packed_fields(TensorProto)[10]
    ('int64_val', dtype('int64'))
    """
    return {
        field.number: (field.name, _DTYPES[field.type])
        for field in kind.DESCRIPTOR.fields
        if field.is_repeated and field.type in _DTYPES
    }
