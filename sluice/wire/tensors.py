"""ndarray <-> TensorProto. Pure: numpy, ml_dtypes and our own protos, no TensorFlow.

TensorFlow's `make_tensor_proto` and `make_ndarray` do this too, at the price of loading TensorFlow.

A TensorProto holds its elements either as raw bytes (`tensor_content`) or one by one in the field
of its dtype (`float_val`, `int_val`, ...). Both are read as TensorFlow's `Tensor::FromProto` reads
them (tests/modelserver/test_tensors_against_tensorflow.py compares the two): typed values that
fall short of the shape are continued with the last one, none at all mean zeros, surplus ones are
ignored. Strings are object arrays of `bytes`.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from sluice.wire.data_types import FORMS, Form, TensorError, data_type_of, form_for, form_of
from sluice.wire.packed import Packed
from sluice.wire.protos.tensorflow_pb2 import TensorProto, TensorShapeProto
from sluice.wire.varint import encode_varint, read_varint

Array = NDArray[Any]

# A few bytes can ask for a tensor of any size, by a large shape and one value to fill it with.
_MAX_FILLED_BYTES = 1 << 26
_SMALL = 1 << 12  # bytes, up to which a copy costs less than a view of them
MAX_RANK = 64  # numpy's own limit
_MAX_ELEMENTS = 1 << 40  # more than any message can hold, and far from overflow in numpy

# Repeated fields whose wire form is the array's own bytes, so that no element is touched.
_PACKED_FIELDS = {"float_val", "double_val", "bool_val", "scomplex_val", "dcomplex_val"}


def decode_tensor(
    proto: TensorProto,
    max_filled_bytes: int = _MAX_FILLED_BYTES,
    content: memoryview | None = None,
    values: Mapping[str, Packed] | None = None,
) -> Array:
    """The array of a TensorProto, read-only where it lies in the message's own bytes.

    content: what stood in `tensor_content`, where it was cut out of the message, and
    values: what stood in other fields, by their names (large_tensors.py).
    Raises TensorError for a dtype that no array holds, a shape with a size unknown, content of
    another length than dtype and shape ask for, values that cannot be read, and more than
    `max_filled_bytes` to be filled with the last of too few typed values.

    >>> float32 = data_type_of("f4")
    >>> proto = TensorProto(dtype=float32, tensor_shape=encode_shape([3]), float_val=[7])
    >>> decode_tensor(proto)
    array([7., 7., 7.], dtype=float32)
    """
    form = form_of(proto.dtype)
    shape = decode_shape(proto.tensor_shape)
    count = math.prod(shape)
    if count and (raw := content or proto.tensor_content):
        return _decode_content(raw, form, count).reshape(shape)
    if form.dtype == object:
        return _fill(string_array(proto.string_val[:count]), count, b"", shape, max_filled_bytes)
    packed = (values or {}).get(form.field)
    numbers = _decode_values(proto, form) if packed is None else _unpack(packed, form, count)
    return _fill(numbers[:count], count, np.zeros((), form.dtype)[()], shape, max_filled_bytes)


def encode_tensor(array: Array, content: bool = False) -> TensorProto:
    r"""The TensorProto of an array: elements in the dtype's own field, or raw in `tensor_content`.

    Raises TensorError for a dtype that TensorFlow has not, and for strings that are not `bytes`.

    >>> encode_tensor(np.array([1.5, 2], np.float32)).float_val
    [1.5, 2.0]
    >>> encode_tensor(np.array([1, 2], np.uint8), content=True).tensor_content
    b'\x01\x02'
    """
    if content:
        proto, _ = _header(array)
        proto.tensor_content = bytes(encode_content(array))
        return proto
    proto, form = _header(array)
    if form.dtype == object:
        proto.string_val.extend(_strings(array))
    else:
        _encode_values(proto, form, np.ascontiguousarray(array, form.dtype))
    return proto


def encode_content(array: Array) -> bytes | memoryview:
    r"""An array's `tensor_content`: where its numbers lie, if they are many and lie there in order.

    Raises TensorError as `encode_tensor` does.

    >>> bytes(encode_content(np.array([1, 2], np.uint8)))
    b'\x01\x02'
    """
    form = form_for(array.dtype)
    if form.dtype == object:
        return _join_strings(_strings(array))
    ordered = np.ascontiguousarray(array, form.dtype)
    if ordered.nbytes < _SMALL:
        return ordered.tobytes()
    return ordered.reshape(-1).view(np.uint8).data


@lru_cache(1024)
def encode_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """A serialized TensorProto that lacks nothing but its elements.

    Raises TensorError where TensorFlow has no such dtype.

    >>> decode_shape(TensorProto.FromString(encode_header(np.dtype("f4"), (2, 3))).tensor_shape)
    (2, 3)
    """
    proto = TensorProto(dtype=data_type_of(dtype), tensor_shape=encode_shape(shape))
    return proto.SerializeToString()


def string_array(strings: Iterable[bytes]) -> Array:
    r"""An object array [N] of bytes; numpy's own strings lose zero bytes at the end.

    >>> string_array([b"a", b"b\0"])
    array([b'a', b'b\x00'], dtype=object)
    """
    items = list(strings)
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _header(array: Array) -> tuple[TensorProto, Form]:
    data_type = data_type_of(array.dtype)
    return TensorProto(dtype=data_type, tensor_shape=encode_shape(array.shape)), FORMS[data_type]


def decode_shape(proto: TensorShapeProto) -> tuple[int, ...]:
    """The sizes of a fully known shape, else TensorError.

    >>> decode_shape(encode_shape([2, 3]))
    (2, 3)
    """
    if len(proto.dim) > MAX_RANK:
        raise TensorError(f"shape has {len(proto.dim)} dimensions; at most {MAX_RANK} are possible")
    sizes = tuple([dim.size for dim in proto.dim])
    if proto.unknown_rank or min(sizes, default=0) < 0:
        raise TensorError(f"shape {list(sizes)} is not fully known; a tensor needs every size")
    if math.prod([size for size in sizes if size]) > _MAX_ELEMENTS:
        raise TensorError(f"shape {list(sizes)} has more than 2^40 elements")
    return sizes


def encode_shape(shape: Iterable[int]) -> TensorShapeProto:
    """The proto of a shape; -1 stands for any size.

    >>> [dim.size for dim in encode_shape([-1, 28]).dim]
    [-1, 28]
    """
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])


def _decode_content(content: bytes | memoryview, form: Form, count: int) -> Array:
    if form.dtype == object:
        return string_array(_split_strings(bytes(content), count))
    expected = count * form.dtype.itemsize
    if len(content) != expected:
        raise TensorError(
            f"tensor_content holds {len(content)} bytes; dtype and shape ask for "
            f"{count} x {form.dtype.itemsize} = {expected}"
        )
    if form.dtype.kind == "b" and np.frombuffer(content, np.uint8).max() > 1:
        raise TensorError("tensor_content of a DT_BOOL holds a byte that is neither 0 nor 1")
    return np.frombuffer(content, form.dtype)


def _decode_values(proto: TensorProto, form: Form) -> Array:
    field = getattr(proto, form.field)
    if isinstance(field, bytes):  # float8_val: one byte an element
        return np.frombuffer(field, form.dtype)
    # Through the field's own width first: values beyond a narrow dtype wrap, as TensorFlow's do.
    _check_pairs(len(field), form)
    return np.asarray(field).astype(form.stored).view(form.dtype)


def _unpack(packed: Packed, form: Form, count: int) -> Array:
    """`count` elements, or as many as there are."""
    numbers = packed.count()
    _check_pairs(numbers, form)
    wanted = min(numbers, count * form.dtype.itemsize // form.stored.itemsize)
    try:
        return packed.read(wanted).astype(form.stored, copy=False).view(form.dtype)
    except DecodeError as error:
        raise TensorError(f"{form.field} cannot be read: {error}") from error


def _check_pairs(numbers: int, form: Form) -> None:
    if numbers * form.stored.itemsize % form.dtype.itemsize:
        raise TensorError(f"{form.field} holds {numbers} numbers; a complex element takes two")


def _fill(values: Array, count: int, empty: object, shape: tuple[int, ...], limit: int) -> Array:
    """`values` in `shape`, continued with their last one, or with `empty` where there are none."""
    if len(values) == count:
        return values.reshape(shape)
    if count * values.itemsize > limit:
        raise TensorError(
            f"{len(values)} values for shape {list(shape)}: filling it takes "
            f"{count * values.itemsize} bytes, more than the {limit} allowed"
        )
    filled = np.full(count, values[-1] if len(values) else empty, values.dtype)
    filled[: len(values)] = values
    return filled.reshape(shape)


def _encode_values(proto: TensorProto, form: Form, array: Array) -> None:
    if form.field == "float8_val":
        proto.float8_val = array.tobytes()
    elif form.field in _PACKED_FIELDS:
        proto.MergeFromString(_packed(form.field, array.tobytes()))
    else:
        getattr(proto, form.field).extend(array.ravel().view(form.stored).tolist())


def _packed(field: str, raw: bytes) -> bytes:
    """A serialized message with `raw` as its packed repeated `field`.

    Protobuf takes arrays element by element (46 ms for 200,000 floats); it copies bytes in 0.3 ms.
    """
    number = TensorProto.DESCRIPTOR.fields_by_name[field].number
    length_delimited = 2
    return encode_varint(number << 3 | length_delimited) + encode_varint(len(raw)) + raw


def _strings(array: Array) -> list[bytes]:
    strings: list[bytes] = array.ravel().tolist()
    for position, string in enumerate(strings):
        if not isinstance(string, bytes):
            raise TensorError(
                f"element {position} is {type(string).__name__}; a string tensor holds bytes"
            )
    return strings


def _join_strings(strings: list[bytes]) -> bytes:
    """Strings in `tensor_content`: all the lengths as varints, then all the bytes."""
    return b"".join(encode_varint(len(string)) for string in strings) + b"".join(strings)


def _split_strings(content: bytes, count: int) -> list[bytes]:
    if count > len(content):  # a length takes a byte
        raise TensorError(f"tensor_content holds {len(content)} bytes, too few for {count} strings")
    lengths, start = [], 0
    for _ in range(count):
        try:
            length, start = read_varint(content, start)
        except ValueError:
            raise TensorError(f"tensor_content has no string length at byte {start}") from None
        lengths.append(length)
    if start + sum(lengths) != len(content):
        raise TensorError(
            f"tensor_content holds {len(content)} bytes; its {count} strings and "
            f"their lengths take {start + sum(lengths)}"
        )
    strings = []
    for length in lengths:
        strings.append(content[start : start + length])
        start += length
    return strings
