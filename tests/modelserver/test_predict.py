"""PredictPlan: a request held against a signature, and errors that name the input at fault."""

import numpy as np
import pytest

from service.modelserver.errors import FailedPrecondition, InvalidArgument
from service.modelserver.predict import PredictPlan
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef, TensorInfo, TensorProto
from sluice.wire.tensors import decode_tensor, encode_tensor


def info(name, dtype=DataType.DT_FLOAT):
    return TensorInfo(name=f"{name}:0", dtype=dtype)


SIGNATURES = {
    "serving_default": SignatureDef(
        inputs={"image": info("feed_image"), "scale": info("feed_scale", DataType.DT_INT64)},
        outputs={"score": info("score"), "again": info("score"), "rank": info("rank")},
        defaults={"scale": encode_tensor(np.array(7, "i8"))},
    )
}


def request(*outputs, signature="", **inputs):
    asked = PredictRequest(output_filter=outputs)
    asked.model_spec.name, asked.model_spec.signature_name = "m", signature
    for name, value in inputs.items():
        proto = value if isinstance(value, TensorProto) else encode_tensor(np.asarray(value))
        asked.inputs[name].CopyFrom(proto)
    return asked


IMAGE = np.ones((1, 2), "f4")


def test_inputs_become_feeds_by_tensor_name():
    run = PredictPlan(SIGNATURES, request(image=IMAGE, scale=np.int64(3))).run
    assert {name: array.tolist() for name, array in run.feeds.items()} == {
        "feed_image:0": [[1, 1]],
        "feed_scale:0": 3,
    }


def test_an_input_that_is_left_out_takes_the_signatures_default():
    assert PredictPlan(SIGNATURES, request(image=IMAGE)).run.feeds["feed_scale:0"] == 7


def test_a_tensor_behind_two_outputs_is_fetched_once():
    plan = PredictPlan(SIGNATURES, request(image=IMAGE))
    assert plan.run.fetches == ("rank:0", "score:0")
    reply = plan.respond({"rank:0": np.float32(1), "score:0": np.float32(2)}, version=4)
    assert {name: decode_tensor(tensor) for name, tensor in reply.outputs.items()} == {
        "again": 2,
        "rank": 1,
        "score": 2,
    }
    assert (reply.model_spec.version.value, reply.model_spec.signature_name) == (
        4,
        "serving_default",
    )


@pytest.mark.parametrize("content", [False, True])
def test_the_filter_chooses_outputs_and_the_server_their_form(content):
    plan = PredictPlan(SIGNATURES, request("score", image=IMAGE), content=content)
    assert plan.run.fetches == ("score:0",)
    reply = plan.respond({"score:0": IMAGE}, version=1)
    assert list(reply.outputs) == ["score"]
    assert bool(reply.outputs["score"].tensor_content) is content


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (
            request(image=IMAGE, signature="nope"),
            FailedPrecondition,
            'Serving signature key "nope" not found.',
        ),
        (request(), InvalidArgument, r"Sent extra: {}. Missing but required: {image}\."),
        (request(image=IMAGE, more=1), InvalidArgument, r"Sent extra: {more}\."),
        (
            request(image=np.ones(2, "i4")),
            InvalidArgument,
            'input "image" is expected to be DT_FLOAT but DT_INT32 is provided',
        ),
        (
            request(image=TensorProto(dtype=DataType.DT_FLOAT, tensor_content=b"abc")),
            InvalidArgument,
            'tensor parsing error: input "image": tensor_content holds 3 bytes',
        ),
        (
            request("x", image=IMAGE),
            InvalidArgument,
            r"output tensor alias not found in signature: x .* {again,rank,score}",
        ),
        (
            request("rank", "rank", image=IMAGE),
            InvalidArgument,
            "duplicate output tensor alias: rank",
        ),
    ],
)
def test_what_does_not_fit_is_named(asked, error, message):
    with pytest.raises(error, match=message):
        PredictPlan(SIGNATURES, asked)
