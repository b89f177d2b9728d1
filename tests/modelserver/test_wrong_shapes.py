"""Inputs of a wrong rank or size: told so, where TensorFlow's convolutions end the process."""

import random
from collections import Counter

import grpc
import numpy as np
import pytest

from service.modelserver.errors import InvalidArgument
from service.modelserver.predict import PredictPlan
from service.modelserver.servable import load_servable
from service.modelserver.warmup import warm_up
from sluice.wire.contract import WARMUP_FILE
from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import (
    ClassificationRequest,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    PredictRequest,
    RegressionRequest,
    ReloadConfigRequest,
)
from sluice.wire.signature import shape_text
from sluice.wire.tensors import decode_tensor, encode_tensor
from tests.modelserver.conftest import tfrecords

MODEL = "convolutions"
# By signature: the shape that its input is expected to have, and one that it takes.
SHAPES = {
    "fixed": ("[N,8,8,1]", (2, 8, 8, 1)),
    "open": ("[N,?,?,3]", (1, 9, 7, 3)),
    "scaled": ("[N,?,?,?]", (2, 8, 8, 1)),
    "single": ("[N,?,?]", (8, 8, 1)),
    "line": ("[N,?,?]", (1, 9, 2)),
    "volume": ("[N,?,?,?,?]", (1, 3, 3, 3, 1)),
    "upwards": ("[N,?,?,?]", (1, 8, 8, 4)),
    "dense": ("[N,?]", (2, 4)),
    "free": ("[...]", (1, 2, 3)),
}


@pytest.fixture(scope="module")
def servable(own_models):
    servable = load_servable(own_models / MODEL / "1", ["serve"], None)
    yield servable
    servable.close()


@pytest.fixture(scope="module")
def server(launch_modelserver, own_models):
    server = launch_modelserver(
        f"--model_name={MODEL}",
        f"--model_base_path={own_models / MODEL}",
        "--bind_address=127.0.0.1",
        "--allow_reload_config=false",
        "--mixed_precision=bfloat16",
    )
    yield server
    assert server.terminate() == 0, server.log


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def predictions(channel):
    return serving_pb2_grpc.PredictionServiceStub(channel)


def predict(signature, array):
    request = PredictRequest(model_spec=ModelSpec(name=MODEL, signature_name=signature))
    request.inputs["x"].CopyFrom(encode_tensor(array))
    return request


def ones(*shape):
    return np.ones(shape, "f4")


@pytest.mark.parametrize("signature", SHAPES)
def test_a_rank_is_known_from_the_signature_or_from_what_the_graph_does_with_it(
    servable, signature
):
    expected, good = SHAPES[signature]
    servable.run(servable.plan(PredictPlan, predict(signature, ones(*good))).run)
    if expected == "[...]":
        return
    for wrong in (), (1,) * (len(good) + 1):
        with pytest.raises(InvalidArgument) as caught:
            servable.plan(PredictPlan, predict(signature, ones(*wrong)))
        assert str(caught.value).startswith(
            f'input "x" is expected to have the shape {expected} but {shape_text(wrong)}'
        )


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((8, 8, 1), ": the batch axis is missing"),
        ((2, 8, 8), ": the channel axis is missing"),
        ((2, 1, 8, 8), ": channels come last here"),
        ((1, 64), ": 4 axes, not 2"),
        ((1, 8, 9, 1), ": axis 2 is 9, not 8"),
    ],
)
def test_what_was_wrong_and_what_to_do_is_told(predictions, shape, hint):
    with pytest.raises(grpc.RpcError) as caught:
        predictions.Predict(predict("fixed", ones(*shape)), timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().endswith(hint)


def test_a_warmup_record_of_a_wrong_shape_is_refused_too(servable, tmp_path, predict_log):
    file = tmp_path / WARMUP_FILE
    file.parent.mkdir()
    file.write_bytes(tfrecords(predict_log(MODEL, signature_name="fixed")))
    with pytest.raises(InvalidArgument, match=r'warmup record 1 failed: input "x" is expected'):
        warm_up(servable, tmp_path)


def test_models_are_not_for_callers_to_choose_unless_they_may(channel):
    models = serving_pb2_grpc.ModelServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        models.HandleReloadConfigRequest(ReloadConfigRequest(), timeout=30)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "--allow_reload_config=true" in caught.value.details()


def test_it_listens_where_it_is_told_to(server):
    assert f"Running gRPC ModelServer at 127.0.0.1:{server.port} ..." in server.log


# ---- at random ----

SIZES = (0, 1, 1, 2, 3, 4, 7, 8, 8, 9, 64)
PROPER = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}


def wrong(rng):
    """(method, request): now and then it is right after all."""
    method = rng.choice(("Predict", "Predict", "Classify", "Regress", "MultiInference"))
    if method == "Predict":
        signature = rng.choice((*SHAPES, "classify"))
        shape = list(SHAPES.get(signature, (0, (1,)))[1])
        if rng.random() < 0.5:  # near the right one
            at = rng.randrange(len(shape) + 1)
            shape[at : at + rng.randrange(3)] = rng.choices(SIZES, k=rng.randrange(3))
        else:
            shape = rng.choices(SIZES, k=rng.randrange(8))
        while np.prod(shape) > 2**16:
            shape[rng.randrange(len(shape))] = 1
        dtype = rng.choice(("f4", "f4", "f4", "f4", "f8", "i4", "u1", "?"))
        request = predict(signature, np.ones(shape, dtype))
        if signature == "classify":
            request.inputs["inputs"].CopyFrom(request.inputs.pop("x"))
        return method, request
    source = Input()
    for _ in range(rng.randrange(4)):
        values = [1.0] * rng.choice((0, 1, 63, 64, 64, 65))
        example = source.example_list.examples.add()
        feature = example.features.feature[rng.choice(("x", "x", "x", "y"))]
        if rng.random() < 0.1:
            feature.bytes_list.value.append(b"1")
        else:
            feature.float_list.value.extend(values)
    signature = rng.choice(("classify", "regress", "fixed"))
    spec = ModelSpec(name=MODEL, signature_name=signature)
    if method == "MultiInference":
        request = MultiInferenceRequest(input=source)
        request.tasks.add(model_spec=spec, method_name="tensorflow/serving/classify")
        return method, request
    cls = ClassificationRequest if method == "Classify" else RegressionRequest
    return method, cls(model_spec=spec, input=source)


def ask_at_random(server, predictions, messages):
    rng, codes, waiting = random.Random(11), Counter(), []
    good = predict("fixed", ones(1, 8, 8, 1))
    expected = decode_tensor(predictions.Predict(good, timeout=60).outputs["y"])
    for _ in range(messages):
        method, request = wrong(rng)
        waiting.append(getattr(predictions, method).future(request, timeout=60))
        if len(waiting) == 16:
            call = waiting.pop(0)
            codes[call.code().name] += 1
            assert call.code().name in PROPER, (call.details(), server.log[-2000:])
    got = decode_tensor(predictions.Predict(good, timeout=60).outputs["y"])
    np.testing.assert_array_equal(got, expected)
    assert server.process.poll() is None
    assert "Traceback" not in server.log, server.log[-3000:]
    return codes


def test_it_lives_through_messages_of_wrong_ranks_and_sizes(server, predictions):
    codes = ask_at_random(server, predictions, 500)
    assert codes["OK"] > 20
    assert codes["INVALID_ARGUMENT"] > 200


@pytest.mark.slow
def test_it_lives_through_20_000_messages_of_wrong_ranks_and_sizes(server, predictions):
    print(dict(ask_at_random(server, predictions, 20_000)))
