"""Requests held against the signature, and the words for what does not fit."""

import numpy as np
import pytest

from service.gateway.errors import InvalidInput, UnknownInput, UnknownSignature
from service.gateway.signatures import Signatures, validate
from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef, TensorInfo
from sluice.wire.signature import Signature, TensorSpec

IMAGE = TensorSpec("image", np.dtype("<f4"), (None, 28, 28, 1))
META = TensorSpec("meta", np.dtype("<i4"), (None, 3))
ONE = Signature("serving_default", {"image": IMAGE}, {})
TWO = Signature("serving_default", {"image": IMAGE, "meta": META}, {})


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 28, 28), "got [1,28,28] (the channel axis is missing)"),
        ((28, 28, 1), "got [28,28,1] (the batch axis is missing)"),
        ((2, 1, 28, 28), "got [2,1,28,28] (channels come last here)"),
        ((2, 784), "got [2,784] (4 axes, not 2)"),
        ((2, 28, 32, 1), "got [2,28,32,1] (axis 2 is 32, not 28)"),
        ((), "got [] (4 axes, not 0)"),
        ((0, 28, 28, 1), "expected at least one row, got an empty batch"),
    ],
)
def test_a_shape_that_does_not_fit(shape, message):
    with pytest.raises(InvalidInput) as raised:
        validate(ONE, {"image": zeros(*shape)})
    assert str(raised.value).startswith("inputs.image: expected ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), '"image" (float32 [N,28,28,1]); got: none'),
        (("imag",), 'has no input "imag"; there is: "image"'),
        (("image", "extra"), 'has no input "extra"'),
    ],
)
def test_names_that_do_not_fit(names, message):
    with pytest.raises(UnknownInput) as raised:
        validate(ONE, dict.fromkeys(names, zeros(1, 28, 28, 1)))
    assert message in str(raised.value)


def test_batches_that_differ():
    with pytest.raises(InvalidInput, match=r"inputs.meta: expected 2 rows, .*, got 3"):
        validate(TWO, {"image": zeros(2, 28, 28, 1), "meta": zeros(3, 3, dtype=np.int32)})


def test_a_dtype_is_widened_but_never_narrowed():
    widened = validate(ONE, {"image": zeros(1, 28, 28, 1, dtype=np.uint8)})
    assert widened["image"].dtype == np.float32
    for dtype in (np.float64, bool, object):
        with pytest.raises(InvalidInput, match="values"):
            validate(ONE, {"image": zeros(1, 28, 28, 1, dtype=dtype)})


def test_a_number_is_no_string():
    text = Signature("text", {"x": TensorSpec("x", np.dtype(object), (None,))}, {})
    with pytest.raises(InvalidInput, match=r"expected string \[N\], got int32 values"):
        validate(text, {"x": zeros(1, dtype=np.int32)})


def test_an_unknown_rank_takes_anything():
    anything = Signature("any", {"x": TensorSpec("x", np.dtype("<f4"), None)}, {})
    for shape in [(), (3,), (0, 2)]:
        assert validate(anything, {"x": zeros(*shape)})["x"].shape == shape


def test_what_cannot_be_called_is_not_among_the_signatures():
    """The initialisation op of a SavedModel, which takes nothing, and a handle as an input."""
    resource = TensorInfo(dtype=DataType.DT_RESOURCE)
    found = Signatures(
        {
            "serving_default": SignatureDef(inputs={"x": TensorInfo(dtype=DataType.DT_FLOAT)}),
            "__saved_model_init_op": SignatureDef(),
            "handles": SignatureDef(inputs={"table": resource}),
        }
    )
    assert found.names() == ["serving_default"]
    with pytest.raises(UnknownSignature, match=r'no signature "handles"; there is: "serving_'):
        found.get("handles")
