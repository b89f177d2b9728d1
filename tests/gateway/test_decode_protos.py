"""Any bytes that are a message are a query or an error of ours, whatever they say."""

import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.decode.oip_proto import decode_model, decode_model_infer
from service.gateway.decode.tfs_proto import MAX_FILLED_BYTES, decode_predict
from service.gateway.errors import GatewayError, InvalidInput, UnknownInput
from service.gateway.signatures import Signatures, validate
from sluice.wire.large_tensors import LARGE, cut
from sluice.wire.model_ref import ModelRef
from sluice.wire.oip_tensors import DATATYPES
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.serving_pb2 import ModelSpec as ModelSpecProto
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef, TensorInfo, TensorProto
from sluice.wire.tensors import encode_shape

FLOATS = TensorInfo(dtype=1, tensor_shape=encode_shape([-1, 2]))
STRINGS = TensorInfo(dtype=7, tensor_shape=encode_shape([-1]))
SIGNATURES = Signatures(
    {
        "serving_default": SignatureDef(inputs={"x": FLOATS}, outputs={"y": FLOATS}),
        "encoded": SignatureDef(inputs={"x": STRINGS}, outputs={"y": FLOATS}),
    }
)

sizes = st.lists(st.integers(-2, 5) | st.integers(-(2**63), 2**63 - 1), max_size=4)
names = st.sampled_from(["x", "xx", ""])
small = st.binary(max_size=20)


@st.composite
def predict_requests(draw):
    request = PredictRequest(
        model_spec=ModelSpecProto(signature_name=draw(st.sampled_from(["", "encoded", "nope"])))
    )
    request.inputs[draw(names)].CopyFrom(
        TensorProto(
            dtype=draw(st.integers(-1, 40)),
            tensor_shape=encode_shape(draw(sizes)),
            tensor_content=draw(small),
            string_val=draw(st.lists(small, max_size=3)),
            float_val=draw(st.lists(st.just(1.0), max_size=3)),
        )
    )
    return request


@st.composite
def infer_requests(draw):
    request = ModelInferRequest(raw_input_contents=draw(st.lists(small, max_size=2)))
    request.parameters["signature_name"].string_param = draw(
        st.sampled_from(["", "encoded", "nope"])
    )
    tensor = request.inputs.add(
        name=draw(names),
        shape=draw(sizes),
        datatype=draw(st.sampled_from([*DATATYPES, "", "FLOAT"])),
    )
    tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    tensor.contents.int_contents.extend(
        draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3))
    )
    tensor.contents.bytes_contents.extend(draw(st.lists(small, max_size=3)))
    if draw(st.booleans()):
        tensor.ClearField("contents")
    return request


def validate_predict(request):
    query = decode_predict(request, {}, SIGNATURES, max_bytes=10**6)
    validate(query.signature, query.inputs)


def test_an_unknown_input_is_named_before_its_strings_are_looked_at():
    request = PredictRequest()
    request.model_spec.signature_name = "encoded"
    request.inputs["imag"].dtype = DataType.DT_STRING
    with pytest.raises(UnknownInput, match="imag"):
        validate_predict(request)


def validate_infer(request):
    query = decode_model_infer(request, SIGNATURES)
    validate(query.signature, query.inputs)


@settings(max_examples=500)
@given(predict_requests())
def test_a_predict_request_is_valid_or_an_error(request):
    valid_or_error(validate_predict, request)


@settings(max_examples=500)
@given(infer_requests())
def test_an_infer_request_is_valid_or_an_error(request):
    valid_or_error(validate_infer, request)


@settings(max_examples=300)
@given(
    st.sampled_from([(PredictRequest, validate_predict), (ModelInferRequest, validate_infer)]),
    st.binary(max_size=60),
)
def test_any_bytes_are_no_message_or_valid_or_an_error(kind, data):
    message_class, validate = kind
    try:
        message = message_class.FromString(data)
    except DecodeError:
        return
    valid_or_error(validate, message)


def valid_or_error(validate, request):
    try:
        validate(request)
    except GatewayError as error:
        assert str(error)


@settings(max_examples=100)
@given(sizes, st.integers(-1, 40), st.integers(LARGE, LARGE + 9))
def test_a_content_that_was_cut_out_is_held_to_the_same_rules(shape, dtype, size):
    whole = PredictRequest()
    whole.inputs["x"].CopyFrom(
        TensorProto(dtype=dtype, tensor_shape=encode_shape(shape), tensor_content=bytes(size))
    )
    data = whole.SerializeToString()
    rest, contents = cut(data, PredictRequest.INPUTS_FIELD_NUMBER)
    assert [len(each) for each in contents.values()] == [size]

    def outcome(message, contents):
        try:
            query = decode_predict(message, contents, SIGNATURES, max_bytes=10**6)
            return validate(query.signature, query.inputs)["x"].tolist()
        except GatewayError as error:
            return str(error)

    assert outcome(PredictRequest.FromString(rest), contents) == outcome(whole, {})


def test_a_large_shape_takes_no_memory():
    rows = MAX_FILLED_BYTES // 8
    request = PredictRequest()

    def decode(rows):
        request.inputs["x"].CopyFrom(TensorProto(dtype=1, tensor_shape=encode_shape([rows, 2])))
        return decode_predict(request, {}, SIGNATURES, max_bytes=2**40)

    assert decode(rows).inputs["x"].nbytes == MAX_FILLED_BYTES
    for more in (rows + 1, 2**36):
        tracemalloc.start()
        with pytest.raises(InvalidInput, match=r"inputs\.x: .* filling it takes"):
            decode(more)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken < MAX_FILLED_BYTES / 2


@pytest.mark.parametrize(
    ("version", "model"),
    [
        ("", ModelRef("m")),
        ("7", ModelRef("m", version=7)),
        ("stable", ModelRef("m", label="stable")),
        ("9" * 19, ModelRef("m", label="9" * 19)),
        ("-1", ModelRef("m", version=-1)),
    ],
)
def test_a_version_is_a_number_that_fits_or_a_label(version, model):
    assert decode_model("m", version) == model
