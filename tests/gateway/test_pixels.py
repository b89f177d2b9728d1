"""What came as uint8 goes to a model's signature `pixels` as it is, where the model has one."""

import asyncio
import io
import time

import grpc
import numpy as np
import pytest
import requests
from PIL import Image

from service.gateway.caller import Caller
from service.gateway.decode.magic import NPZ
from service.gateway.predictions import Predictions
from service.gateway.query import Query
from service.gateway.settings import Settings
from sluice import Client
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import decode_tensor, encode_tensor
from tests.gateway.numpy_files import npz

PICTURE = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1) + 60  # together 246
ASKED_PIXELS = 1000  # more than `serving_default` answers
ROW = {"above": PICTURE, "below": PICTURE, "size": np.array([[0.5]], np.float32)}
SUM = 2 * 246 + 0.5


@pytest.fixture(scope="module")
def served(launch_grpc_gateway, own_modelserver):
    return launch_grpc_gateway(own_modelserver.address)


@pytest.fixture(scope="module")
def url(served) -> str:
    return served[0].url


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE[0, ..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def predicted(url, body, kind, **more):
    reply = requests.post(
        f"{url}/v1/models/bytes:predict", data=body, headers=kind, timeout=30, **more
    )
    assert reply.status_code == 200, reply.text
    return reply.json()["predictions"]


def test_arrays_of_uint8_go_as_they_are(url):
    assert predicted(url, npz(**ROW), {"Content-Type": NPZ}) == [SUM + ASKED_PIXELS]


def test_pictures_that_are_decoded_here_go_as_their_bytes(url):
    form = {"above": png(), "below": png(), "size": (None, "[0.5]")}
    assert predicted(url, None, {}, files=form) == [SUM + ASKED_PIXELS]


@pytest.mark.parametrize(
    "wider", [{"below": PICTURE.astype("f4")}, {"above": PICTURE.astype("i4")}]
)
def test_one_picture_of_wider_numbers_takes_all_to_the_default_signature(url, wider):
    assert predicted(url, npz(**{**ROW, **wider}), {"Content-Type": NPZ}) == [SUM]


def test_json_goes_where_it_went(url):
    inputs = {name: array[0].tolist() for name, array in ROW.items()}
    reply = requests.post(
        f"{url}/v1/models/bytes:predict", json={"instances": [inputs]}, timeout=30
    )
    assert reply.json() == {"predictions": [SUM]}


@pytest.mark.parametrize("way", ["http", "grpc", "model-server"])
def test_our_client_sends_uint8_as_it_is(served, own_modelserver, way):
    target = {
        "http": served[0].url,
        "grpc": f"grpc://{served[1]}",
        "model-server": f"grpc://{own_modelserver.address}",
    }[way]
    with Client(target) as client:
        assert client.predict("bytes", ROW)["sum"] == SUM + ASKED_PIXELS
        assert client.predict("bytes", ROW, signature="serving_default").signature == (
            "serving_default"
        )
        floats = {name: array.astype("f4") for name, array in ROW.items()}
        assert client.predict("bytes", floats)["sum"] == SUM


def test_the_infer_protocol_declares_uint8_for_the_default_signature(url):
    inputs = [
        {
            "name": name,
            "datatype": "UINT8" if array.dtype == np.uint8 else "FP32",
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        for name, array in ROW.items()
    ]
    reply = requests.post(f"{url}/v2/models/bytes/infer", json={"inputs": inputs}, timeout=30)
    assert reply.json()["outputs"][0]["data"] == [SUM + ASKED_PIXELS]


def test_predict_over_grpc_casts_nothing_as_tensorflow_serving_does(served):
    request = PredictRequest(inputs={name: encode_tensor(array) for name, array in ROW.items()})
    request.model_spec.name = "bytes"
    with grpc.insecure_channel(served[1]) as channel:
        predict = serving_pb2_grpc.PredictionServiceStub(channel).Predict
        with pytest.raises(grpc.RpcError) as refused:
            predict(request, timeout=30)
        request.model_spec.signature_name = "pixels"
        answer = decode_tensor(predict(request, timeout=30).outputs["sum"])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert answer == SUM + ASKED_PIXELS


def test_what_does_not_fit_is_refused_in_the_default_signatures_words(url):
    wrong = npz(**{**ROW, "above": PICTURE[:, :1]})
    reply = requests.post(
        f"{url}/v1/models/bytes:predict", data=wrong, headers={"Content-Type": NPZ}, timeout=30
    )
    assert reply.status_code == 400
    assert "inputs.above: expected float32 [N,2,2,1]" in reply.json()["error"]


def test_a_newer_version_without_it_answers_at_once(own_models, own_modelserver):
    """Gateway and client remember what the version before had."""
    there, away = own_models / "bytes" / "2", own_models / "later" / "bytes"

    async def ask(predictions):
        caller = Caller(time.monotonic() + 30)
        _, answer = await predictions.infer(
            ModelRef("bytes"), lambda known: Query(known.get(), dict(ROW)), caller, size=0
        )
        return answer.version, answer.outputs["sum"][0]

    async def ask_across_versions(client):
        predictions = Predictions(
            Settings(model_server=own_modelserver.address, metadata_ttl_s=1000)
        )
        await predictions.open()
        try:
            before = await ask(predictions), client.predict("bytes", ROW)["sum"][0]
            away.rename(there)
            deadline = time.monotonic() + 60
            while len(await predictions.available_versions("bytes", Caller(deadline))) < 2:
                await asyncio.sleep(0.1)
            return before, (await ask(predictions), client.predict("bytes", ROW)["sum"][0])
        finally:
            await predictions.close()

    try:
        with Client(f"grpc://{own_modelserver.address}") as client:
            before, after = asyncio.run(ask_across_versions(client))
    finally:
        there.rename(away)
    more = SUM + ASKED_PIXELS
    assert before == ((1, more), more)
    assert after == ((2, SUM), SUM)
