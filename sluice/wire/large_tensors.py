"""Large tensors in and out of serialized messages, without the copies that protobuf makes of them.

Protobuf copies a tensor's bytes when it parses the message around them and once more when they are
read; three times when they are written. Its Python package (7.36.2) offers no way round: a bytes
field always owns its bytes, where C++ has `[ctype = CORD]` and string views. So large contents are
cut out of a message before it is parsed, and pasted in when the rest has been serialized
(docs/decisions/0009-large-tensors-go-round-protobuf.md has the figures). Both know one form alone:
a `map<string, TensorProto>` whose tensors carry `tensor_content`. Numbers that came packed in a
field of their own are cut out too, of these and of the Open Inference Protocol's (packed.py says
why).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message

from sluice.wire.packed import Packed, packed_fields
from sluice.wire.protos.tensorflow_pb2 import TensorProto
from sluice.wire.tensors import Array, encode_content, encode_header
from sluice.wire.varint import head, read_varint

Buffer = bytes | memoryview
Contents = Mapping[str, memoryview]  # by the tensor's name
Values = Mapping[str, Packed]  # of one tensor, by the field's name

LARGE = 1 << 14  # bytes, from which on finding a content costs less than copying it
MAX_FIELDS = 64  # of one message; where there are more, protobuf reads them faster

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_KEY, _VALUE = 1, 2  # the fields of a map's entry
_CONTENT = TensorProto.DESCRIPTOR.fields_by_name["tensor_content"].number


class _Irregular(Exception):
    """Not the form that is known here: protobuf is to read it, and to say what is wrong."""


class _Field(NamedTuple):
    """Where a field of a message lies: its tag, its value (behind the length, if it has one)."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int


def cut(data: bytes, tensors: int) -> tuple[bytes, Contents]:
    """The message less the contents of its large tensors, and these by name, where they lie.

    tensors: the number of the message's field `map<string, TensorProto>`.
    Whatever is irregular is left in its place, malformed messages included.

    >>> import numpy as np
    >>> from sluice.wire.protos.serving_pb2 import PredictRequest
    >>> from sluice.wire.tensors import encode_tensor
    >>> request = PredictRequest()
    >>> request.inputs["image"].CopyFrom(encode_tensor(np.zeros(LARGE, "u1"), content=True))
    >>> rest, contents = cut(request.SerializeToString(), PredictRequest.INPUTS_FIELD_NUMBER)
    >>> len(contents["image"]), len(rest)
    (16384, 21)
    """
    if len(data) < LARGE:
        return data, {}
    try:
        return _cut(memoryview(data), tensors)
    except (_Irregular, ValueError):
        return data, {}


def cut_values(
    data: bytes, tensors: int, tensor: int, kind: type[Message]
) -> tuple[bytes, Mapping[str, Values]]:
    """The message less the many numbers that came packed, and these by the name of their tensor.

    tensors: the number of the message's repeated field whose messages have a name as field 1 and
    hold their values as field `tensor`, a message of `kind`. Whatever is irregular is left in its
    place, malformed messages included.

    >>> from sluice.wire.protos.inference_pb2 import InferTensorContents, ModelInferRequest
    >>> request = ModelInferRequest()
    >>> request.inputs.add(name="x").contents.int64_contents.extend([7] * LARGE)
    >>> data = request.SerializeToString()
    >>> rest, values = cut_values(data, 5, 5, InferTensorContents)
    >>> len(rest), values["x"]["int64_contents"].read(3)
    (7, array([7, 7, 7]))
    """
    if len(data) < LARGE:
        return data, {}
    try:
        return _cut_values(memoryview(data), tensors, tensor, kind)
    except (_Irregular, ValueError):
        return data, {}


def paste(message: Message, tensors: int, arrays: Mapping[str, Array]) -> bytes:
    """The serialized message with one tensor more for each array, its elements in tensor_content.

    Raises TensorError for an array that no tensor can hold.

    >>> import numpy as np
    >>> from sluice.wire.protos.serving_pb2 import PredictResponse
    >>> from sluice.wire.tensors import decode_tensor
    >>> data = paste(PredictResponse(), PredictResponse.OUTPUTS_FIELD_NUMBER, {"y": np.ones(2)})
    >>> decode_tensor(PredictResponse.FromString(data).outputs["y"])
    array([1., 1.])
    """
    rows = {name: [array] for name, array in arrays.items()}
    return paste_rows(message.SerializeToString(), tensors, rows)


def paste_rows(message: bytes, tensors: int, arrays: Mapping[str, Sequence[Array]]) -> bytes:
    """The same for a message that is serialized already, and a tensor whose rows lie in several
    arrays of one dtype and one inner shape: each is copied once, into its place.

    >>> import numpy as np
    >>> from sluice.wire.protos.serving_pb2 import PredictResponse
    >>> from sluice.wire.tensors import decode_tensor
    >>> rows = {"y": [np.ones(2), np.zeros(1)]}
    >>> data = paste_rows(b"", PredictResponse.OUTPUTS_FIELD_NUMBER, rows)
    >>> decode_tensor(PredictResponse.FromString(data).outputs["y"])
    array([1., 1., 0.])
    """
    parts: list[Buffer] = [message]
    for name, pieces in arrays.items():
        dtype, shape, contents = _encode_rows(pieces)
        parts += [before_content(tensors, name, dtype, shape, sum(map(len, contents))), *contents]
    return b"".join(parts)


@lru_cache(1024)
def before_content(
    tensors: int, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], size: int
) -> bytes:
    r"""What stands in the field before a tensor's content, of so many bytes: the same for many.

    >>> before_content(1, "x", np.dtype("u1"), (2,), 2)
    b'\n\x11\n\x01x\x12\x0c\x08\x04\x12\x04\x12\x02\x08\x02"\x02'
    """
    tensor = encode_header(dtype, shape) + head(_CONTENT, size)
    entry = _delimited(_KEY, name.encode()) + head(_VALUE, len(tensor) + size) + tensor
    return head(tensors, len(entry) + size) + entry


def _encode_rows(
    pieces: Sequence[Array],
) -> tuple[np.dtype[Any], tuple[int, ...], list[Buffer]]:
    """The dtype and the shape of all of them, and their content in pieces."""
    # Of strings all lengths come before all bytes; small arrays are copied sooner than looked at.
    if len(pieces) > 1 and (pieces[0].dtype.kind == "O" or pieces[0].nbytes < LARGE):
        pieces = [np.concatenate(pieces)]
    first = pieces[0]
    shape = first.shape if len(pieces) == 1 else (sum(map(len, pieces)), *first.shape[1:])
    return first.dtype, shape, [encode_content(piece) for piece in pieces]


def _cut(data: memoryview, tensors: int) -> tuple[bytes, Contents]:
    rest: list[Buffer] = []
    contents: dict[str, memoryview] = {}
    names = set()
    for field in _fields(data):
        if (field.number, field.wire_type) != (tensors, _DELIMITED):
            rest.append(data[field.start : field.end])
            continue
        entry = data[field.value : field.end]
        name, tensor = _entry(entry)
        if name in names:  # the last one would count
            raise _Irregular
        names.add(name)
        content = _content_of(tensor) if len(tensor) >= LARGE else None
        if content is None:
            rest.append(data[field.start : field.end])
            continue
        contents[name] = tensor[content.value : content.end]
        header = b"".join((tensor[: content.start], tensor[content.end :]))
        rest.append(
            _delimited(tensors, _delimited(_KEY, name.encode()) + _delimited(_VALUE, header))
        )
    return b"".join(rest), contents


def _cut_values(
    data: memoryview, tensors: int, tensor: int, kind: type[Message]
) -> tuple[bytes, Mapping[str, Values]]:
    rest: list[Buffer] = []
    found: dict[str, Values] = {}
    for field in _fields(data):
        if (field.number, field.wire_type) != (tensors, _DELIMITED):
            rest.append(data[field.start : field.end])
            continue
        entry = data[field.value : field.end]
        inner = [each for each in _fields(entry) if each.number in (_KEY, tensor)]
        named = [each for each in inner if each.number == _KEY]
        holding = [each for each in inner if each.number == tensor]
        if len(named) != 1 or len(holding) > 1 or any(x.wire_type != _DELIMITED for x in inner):
            raise _Irregular
        name = str(entry[named[0].value : named[0].end], "utf-8")
        if name in found:  # in a map the last one would count
            raise _Irregular
        found[name] = {}
        for each in holding:
            left, found[name] = _values_of(entry[each.value : each.end], kind)
            if found[name]:
                whole = b"".join((entry[: each.start], _delimited(tensor, left), entry[each.end :]))
                rest.append(_delimited(tensors, whole))
        if not found[name]:
            rest.append(data[field.start : field.end])
    values = {name: each for name, each in found.items() if each}
    return b"".join(rest), values


def _values_of(message: memoryview, kind: type[Message]) -> tuple[bytes, Values]:
    """A message of `kind` less its many packed numbers, and these."""
    if len(message) < LARGE:
        return b"", {}
    found = list(_fields(message))
    values = {}
    for number, (name, dtype) in packed_fields(kind).items():
        own = [field for field in found if field.number == number]
        if any(field.wire_type != _DELIMITED for field in own):  # some of them came one by one
            continue
        packed = Packed(kind, name, dtype, tuple(message[field.value : field.end] for field in own))
        if packed.nbytes >= LARGE and packed.is_whole:
            values[number] = packed
    left = b"".join(message[f.start : f.end] for f in found if f.number not in values)
    return left, {packed.name: packed for packed in values.values()}


def _entry(entry: memoryview) -> tuple[str, memoryview]:
    """The key and the value of a map's entry that holds one of each and nothing else."""
    fields = {
        field.number: entry[field.value : field.end]
        for field in _fields(entry)
        if field.wire_type == _DELIMITED
    }
    if set(fields) != {_KEY, _VALUE} or len(list(_fields(entry))) != 2:
        raise _Irregular
    return str(fields[_KEY], "utf-8"), fields[_VALUE]


def _content_of(tensor: memoryview) -> _Field | None:
    """The field `tensor_content`, or None where there is none."""
    found = [field for field in _fields(tensor) if field.number == _CONTENT]
    if len(found) > 1 or any(field.wire_type != _DELIMITED for field in found):
        raise _Irregular
    return found[0] if found else None


def _fields(message: memoryview) -> Iterator[_Field]:
    position, count = 0, 0
    while position < len(message):
        count += 1
        if count > MAX_FIELDS:
            raise _Irregular
        start = position
        tag, position = read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _DELIMITED:
            size, position = read_varint(message, position)
            end = position + size
        elif wire_type == _VARINT:
            end = read_varint(message, position, most=10)[1]
        else:
            # Of an unknown wire type nobody knows the end: beyond the message, which is irregular.
            end = position + {_FIXED64: 8, _FIXED32: 4}.get(wire_type, len(message) + 1)
        if end > len(message):
            raise _Irregular
        yield _Field(number, wire_type, start, position, end)
        position = end


def _delimited(number: int, value: bytes) -> bytes:
    return head(number, len(value)) + value
