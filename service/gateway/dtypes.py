"""Which dtypes travel in which dialect, and in which other one those that do not."""

import ml_dtypes
import numpy as np

from sluice.wire.oip_tensors import DATATYPES
from sluice.wire.signature import dtype_name

# What a request, or an answer, travels in; as a message names it.
JSON = "TensorFlow Serving's JSON"
NUMPY = ".npy and .npz files at /v1/models/MODEL:predict"
OIP = "the Open Inference Protocol"
GRPC = "gRPC's PredictRequest"

_OIP_DTYPES = frozenset(DATATYPES.values())
SMALL_INTEGERS = frozenset(map(np.dtype, (ml_dtypes.int4, ml_dtypes.uint4)))


def is_quantized(dtype: np.dtype) -> bool:
    """Whether an element is a whole number that stands for a real one by a scale that TensorFlow
    keeps elsewhere: qint8 and its kin."""
    return dtype.names is not None


def carriers(dtype: np.dtype) -> list[str]:
    """The dialects that carry it, easiest first.

    >>> carriers(np.dtype("c8"))
    ['.npy and .npz files at /v1/models/MODEL:predict', "gRPC's PredictRequest"]
    """
    carried = {
        JSON: dtype.kind != "c" and not is_quantized(dtype),
        NUMPY: not is_quantized(dtype),
        OIP: dtype in _OIP_DTYPES,
        GRPC: True,
    }
    return [dialect for dialect, carries in carried.items() if carries]


def not_carried(dtype: np.dtype, dialect: str) -> str | None:
    """Why `dialect` cannot carry it, and which can; None where it can.

    >>> not_carried(np.dtype([("qint8", "i1")]), OIP)
    "the Open Inference Protocol cannot carry qint8; gRPC's PredictRequest can"
    """
    able = carriers(dtype)
    if dialect in able:
        return None
    name = dtype.names[0] if dtype.names else dtype_name(dtype)
    return f"{dialect} cannot carry {name}; {' or '.join(able)} can"


def bounds_of(dtype: np.dtype) -> tuple[int, int]:
    """The least and the most of an integer dtype.

    >>> bounds_of(np.dtype("u1")), bounds_of(np.dtype(ml_dtypes.int4))
    ((0, 255), (-8, 7))
    """
    bounds = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(bounds.min), int(bounds.max)


def is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" or dtype in SMALL_INTEGERS


def is_real(dtype: np.dtype) -> bool:
    """Whether its elements are floats: numpy's own, bfloat16 and float8."""
    return dtype.kind == "f" or (
        dtype.kind == "V" and not is_quantized(dtype) and dtype not in SMALL_INTEGERS
    )
