"""A running twin whose models bring batching parameters of their own, large-batch splitting too."""

import io
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from PIL import Image

from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import GetModelStatusRequest, ModelSpec, PredictRequest
from sluice.wire.tensors import decode_tensor, encode_tensor

PARAMETERS = {
    "split": """max_batch_size { value: 10 } max_execution_batch_size { value: 4 }
                enable_large_batch_splitting { value: true }""",
    "small": "max_batch_size { value: 2 }",
    "unbatched": None,
    "broken": "max_batch_size { value: 0 }",
    "files": "max_batch_size { value: 32 } num_batch_threads { value: 1 }",
    "unbatched-files": None,
}


@pytest.fixture(scope="module")
def server(launch_modelserver, tmp_path_factory, own_models):
    directory = tmp_path_factory.mktemp("own-parameters")
    for name, parameters in PARAMETERS.items():
        model = "files" if "files" in name else "wide"
        shutil.copytree(own_models / model, directory / name)
        if parameters is not None:
            (directory / name / "1" / "batching_params.pbtxt").write_text(parameters)
    server = launch_modelserver(
        f"--model_repository={directory}",
        "--enable_batching",
        "--enable_per_model_batching_parameters",
    )
    yield server
    assert server.terminate() == 0, server.log


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def predict(channel):
    """y of a model that gives what it gets."""

    def ask(model, rows):
        request = PredictRequest(model_spec=ModelSpec(name=model))
        request.inputs["x"].CopyFrom(encode_tensor(np.arange(rows, dtype="f4")[:, None]))
        reply = serving_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
        return decode_tensor(reply.outputs["y"])[:, 0].tolist()

    return ask


@pytest.mark.parametrize(("model", "rows"), [("split", 10), ("small", 2), ("unbatched", 5000)])
def test_a_model_takes_what_its_own_parameters_allow(predict, model, rows):
    assert predict(model, rows) == list(range(rows))


@pytest.mark.parametrize(("model", "rows", "limit"), [("split", 11, 10), ("small", 3, 2)])
def test_a_model_refuses_what_its_own_parameters_do_not(predict, model, rows, limit):
    with pytest.raises(grpc.RpcError, match=f"maximum input batch size {limit}") as caught:
        predict(model, rows)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_large_calls_at_the_same_time_get_their_own_rows(predict):
    sizes = [1, 10, 3, 7, 4, 9] * 5
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rows: predict("split", rows), sizes))
    assert answers == [list(range(rows)) for rows in sizes]


@pytest.mark.parametrize("model", ["files", "unbatched-files"])
def test_a_bad_file_spoils_no_other_that_it_waits_with(channel, model):
    predict = serving_pb2_grpc.PredictionServiceStub(channel).Predict
    files = [png(grey) for grey in range(200)]
    for place in range(0, 200, 7):
        files[place] = files[place][:40]

    def ask(file):
        request = PredictRequest(model_spec=ModelSpec(name=model))
        request.inputs["x"].CopyFrom(encode_tensor(np.array([file], object)))
        try:
            return decode_tensor(predict(request, timeout=60).outputs["y"]).item()
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, files))
    for grey, answer in enumerate(answers):
        assert answer == (grpc.StatusCode.INVALID_ARGUMENT if grey % 7 == 0 else grey)


def png(grey):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, "PNG")
    return buffer.getvalue()


def test_parameters_that_cannot_be_followed_fail_that_version_alone(server, channel):
    status = serving_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
        GetModelStatusRequest(model_spec=ModelSpec(name="broken")), timeout=30
    )
    [version] = status.model_version_status
    assert version.status.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert version.status.error_message == "max_batch_size must be positive; was 0"
    assert re.search("Loading .*broken.* failed: INVALID_ARGUMENT", server.log)
