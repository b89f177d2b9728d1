"""Images for a signature `encoded` over gRPC: under the limits that hold over HTTP."""

import io
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from PIL import Image

from sluice.wire.oip_tensors import encode_raw
from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.inference_pb2_grpc import GRPCInferenceServiceStub
from sluice.wire.protos.serving_pb2 import (
    GetModelMetadataResponse,
    ModelSpec,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from sluice.wire.protos.tensorflow_pb2 import DataType, TensorProto
from sluice.wire.tensors import decode_tensor, encode_shape, encode_tensor, string_array

LIMIT = 10_000
STRING = DataType.DT_STRING


class ImageModelServer(serving_pb2_grpc.PredictionServiceServicer):
    """Has a signature `encoded`, and answers everything that it gets; `asked` is the last of it."""

    asked = PredictRequest()

    def GetModelMetadata(self, request, _):  # noqa: N802
        signatures = SignatureDefMap()
        tensor = signatures.signature_def["encoded"].inputs["image"]
        tensor.dtype = STRING
        tensor.tensor_shape.dim.add(size=-1)
        reply = GetModelMetadataResponse(model_spec=request.model_spec)
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def Predict(self, request, _):  # noqa: N802
        ImageModelServer.asked = request
        return PredictResponse(model_spec=request.model_spec)


@pytest.fixture(scope="module")
def channel(launch_grpc_gateway):
    server = grpc.server(ThreadPoolExecutor(4))
    serving_pb2_grpc.add_PredictionServiceServicer_to_server(ImageModelServer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _, address = launch_grpc_gateway(f"127.0.0.1:{port}", max_image_pixels=LIMIT)
    with grpc.insecure_channel(address) as channel:
        yield channel
    server.stop(0).wait()


def png(width, height):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def over_tfs(channel, proto):
    request = PredictRequest(model_spec=ModelSpec(name="m", signature_name="encoded"))
    request.inputs["image"].CopyFrom(proto)
    return serving_pb2_grpc.PredictionServiceStub(channel).Predict.future(request, timeout=30)


def over_oip(channel, array, datatype="BYTES"):
    request = ModelInferRequest(model_name="m", raw_input_contents=[encode_raw(array)])
    request.parameters["signature_name"].string_param = "encoded"
    request.inputs.add(name="image", datatype=datatype, shape=array.shape)
    return GRPCInferenceServiceStub(channel).ModelInfer.future(request, timeout=30)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([png(100, 100)] * 3, ""),
        (
            [png(100, 100), png(101, 100)],
            "inputs.image at row 1: expected an image of at most 10000 pixels, "
            "got 101 x 100 = 10100",
        ),
        (
            [b"no image"],
            "inputs.image at row 0: expected an image (JPEG, PNG, GIF, BMP, WebP), got 8 bytes",
        ),
    ],
)
def test_the_limits_of_images_hold_in_both_protocols(channel, files, message):
    images = string_array(files)
    for call in (
        over_tfs(channel, encode_tensor(images)),
        over_tfs(channel, encode_tensor(images, content=True)),
        over_oip(channel, images),
    ):
        assert call.code().name == ("INVALID_ARGUMENT" if message else "OK"), call.details()
        assert message in call.details()


def test_what_the_graph_does_not_read_reaches_it_as_png(channel):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    files = string_array([png(9, 9), buffer.getvalue()])
    for call in (over_tfs(channel, encode_tensor(files)), over_oip(channel, files)):
        assert call.code() == grpc.StatusCode.OK, call.details()
        as_it_was, made = decode_tensor(ImageModelServer.asked.inputs["image"])
        assert as_it_was == png(9, 9)
        with Image.open(io.BytesIO(made), formats=["PNG"]) as image:
            assert (image.size, image.getpixel((4, 4))) == ((9, 7), (255, 0, 0))


def test_a_damaged_file_that_would_become_png_names_its_row(channel):
    cut = Image.new("RGB", (9, 7))
    buffer = io.BytesIO()
    cut.save(buffer, "WEBP")
    call = over_tfs(channel, encode_tensor(string_array([png(9, 9), buffer.getvalue()[:-9]])))
    assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs.image at row 1: expected a whole image, got a damaged one" in call.details()


@pytest.mark.parametrize(
    "proto",
    [
        TensorProto(dtype=STRING, tensor_shape=encode_shape([1000]), string_val=[png(9, 9)]),
        TensorProto(dtype=STRING, tensor_shape=encode_shape([1000]), tensor_content=b"x"),
        encode_tensor(string_array([png(9, 9)]).reshape(1, 1)),
        encode_tensor(np.zeros(3, "f4")),
    ],
    ids=["one for many", "torn", "rank", "numbers"],
)
def test_what_is_no_row_of_images(channel, proto):
    call = over_tfs(channel, proto)
    assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs.image: expected string [N], got " in call.details()


def test_numbers_for_images_over_the_open_inference_protocol(channel):
    call = over_oip(channel, np.zeros(3, "f4"), "FP32")
    assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs.image: expected string [N], got float32 values" in call.details()
