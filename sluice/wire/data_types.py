"""numpy's dtypes and TensorFlow's: which is which, and how an element of each travels.

Strings are object arrays of `bytes`.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from sluice.wire.protos.tensorflow_pb2 import DataType


class TensorError(ValueError):
    """A TensorProto that says two things at once, or an array that no TensorProto can hold."""


class Form(NamedTuple):
    """How one dtype travels: its numpy dtype, its typed field, and how an element lies in there.

    >>> form_of(DataType.DT_HALF).field
    'half_val'
    """

    dtype: np.dtype[Any]
    field: str
    stored: np.dtype[Any]


def _form(dtype: DTypeLike, field: str, stored: DTypeLike | None = None) -> Form:
    return Form(np.dtype(dtype), field, np.dtype(dtype if stored is None else stored))


FORMS: dict[DataType, Form] = {
    DataType.DT_FLOAT: _form("<f4", "float_val"),
    DataType.DT_DOUBLE: _form("<f8", "double_val"),
    DataType.DT_INT32: _form("<i4", "int_val"),
    DataType.DT_UINT8: _form("u1", "int_val"),
    DataType.DT_INT16: _form("<i2", "int_val"),
    DataType.DT_INT8: _form("i1", "int_val"),
    DataType.DT_COMPLEX64: _form("<c8", "scomplex_val", "<f4"),
    DataType.DT_INT64: _form("<i8", "int64_val"),
    DataType.DT_BOOL: _form("?", "bool_val"),
    DataType.DT_QINT8: _form([("qint8", "i1")], "int_val", "i1"),
    DataType.DT_QUINT8: _form([("quint8", "u1")], "int_val", "u1"),
    DataType.DT_QINT32: _form([("qint32", "<i4")], "int_val", "<i4"),
    DataType.DT_BFLOAT16: _form(ml_dtypes.bfloat16, "half_val", "<u2"),
    DataType.DT_QINT16: _form([("qint16", "<i2")], "int_val", "<i2"),
    DataType.DT_QUINT16: _form([("quint16", "<u2")], "int_val", "<u2"),
    DataType.DT_UINT16: _form("<u2", "int_val"),
    DataType.DT_COMPLEX128: _form("<c16", "dcomplex_val", "<f8"),
    DataType.DT_HALF: _form("<f2", "half_val", "<u2"),
    DataType.DT_UINT32: _form("<u4", "uint32_val"),
    DataType.DT_UINT64: _form("<u8", "uint64_val"),
    DataType.DT_FLOAT8_E5M2: _form(ml_dtypes.float8_e5m2, "float8_val", "u1"),
    DataType.DT_FLOAT8_E4M3FN: _form(ml_dtypes.float8_e4m3fn, "float8_val", "u1"),
    DataType.DT_INT4: _form(ml_dtypes.int4, "int_val", "i1"),
    DataType.DT_UINT4: _form(ml_dtypes.uint4, "int_val", "u1"),
    DataType.DT_STRING: _form(object, "string_val"),
}
_DATA_TYPES = {form.dtype: data_type for data_type, form in FORMS.items()}


def numpy_dtype(data_type: DataType) -> np.dtype[Any]:
    """The numpy dtype of a DataType; DT_STRING is `object`.

    >>> numpy_dtype(DataType.DT_FLOAT), numpy_dtype(DataType.DT_STRING)
    (dtype('float32'), dtype('O'))

    Raises TensorError for a type that no array holds (DT_RESOURCE, DT_VARIANT, unknown numbers).
    """
    return form_of(data_type).dtype


def data_type_of(dtype: DTypeLike) -> DataType:
    """The DataType of a numpy dtype, whatever its byte order; `object` and `S` are DT_STRING.

    Raises TensorError where TensorFlow has no such dtype.

    >>> data_type_name(data_type_of(">f4")), data_type_name(data_type_of("S3"))
    ('DT_FLOAT', 'DT_STRING')
    """
    wanted = np.dtype(dtype)
    if wanted.kind == "S":
        return DataType.DT_STRING
    data_type = _DATA_TYPES.get(wanted if wanted.kind == "V" else wanted.newbyteorder("<"))
    if data_type is None:
        raise TensorError(f"numpy's {wanted} has no TensorFlow dtype")
    return data_type


def data_type_name(data_type: DataType) -> str:
    """TensorFlow's name; the bare number where it has none.

    >>> data_type_name(1), data_type_name(999)
    ('DT_FLOAT', '999')
    """
    return DataType.Name(data_type) if data_type in DataType.values() else str(data_type)


@lru_cache(256)
def form_for(dtype: np.dtype[Any]) -> Form:
    """Of a numpy dtype. Raises TensorError where TensorFlow has no such dtype.

    >>> form_for(np.dtype("f2")).stored
    dtype('uint16')
    """
    return FORMS[data_type_of(dtype)]


def form_of(data_type: DataType) -> Form:
    """Raises TensorError for a type that no array holds.

    >>> form_of(DataType.DT_STRING).dtype
    dtype('O')
    """
    form = FORMS.get(data_type)
    if form is None:
        raise TensorError(f"dtype {data_type_name(data_type)} cannot be held in a tensor")
    return form
