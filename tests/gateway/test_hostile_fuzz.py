"""Mutated bodies at every decoder: each is a query, or an error of ours that says something."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.gateway.decode.content_encoding import decompress
from service.gateway.decode.examples import decode_examples
from service.gateway.decode.images import (
    ImageOptions,
    check_content,
    check_examples,
    decode_form,
    decode_image,
)
from service.gateway.decode.numpy_files import decode_npy, decode_npz
from service.gateway.decode.oip import decode_infer, parse_json_length
from service.gateway.decode.oip_proto import decode_model_infer
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.decode.tfs_proto import decode_predict as decode_predict_proto
from service.gateway.errors import GatewayError
from service.gateway.signatures import Signatures, validate
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.serving_pb2 import Input, PredictRequest
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo
from sluice.wire.tensors import encode_shape, encode_tensor
from tests.gateway.numpy_files import npy

LIMIT, PIXELS = 1 << 20, 10_000


def info(dtype, *sizes):
    return TensorInfo(dtype=dtype, tensor_shape=encode_shape(sizes))


FLOAT, UINT8, STRING, BOOL, BFLOAT16 = 1, 4, 7, 10, 14
SIGNATURES = Signatures(
    {
        "serving_default": SignatureDef(inputs={"x": info(FLOAT, -1, 2)}, outputs={"y": info(1)}),
        "encoded": SignatureDef(inputs={"x": info(STRING, -1)}, outputs={"y": info(1)}),
        "text": SignatureDef(inputs={"x": info(STRING, -1)}, outputs={"y": info(1)}),
        "pixels": SignatureDef(inputs={"x": info(UINT8, -1, 4, 4, 3)}, outputs={"y": info(1)}),
        "odd": SignatureDef(inputs={"x": info(BFLOAT16, -1)}, outputs={"y": info(1)}),
        "pair": SignatureDef(
            inputs={"x": info(UINT8, -1, 2), "z": info(BOOL, -1)}, outputs={"y": info(1)}
        ),
    }
)
NAMES = SIGNATURES.names()


def npz(**named):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **named)
    return buffer.getvalue()


def picture(kind, frames=1):
    buffer = io.BytesIO()
    images = [Image.new("RGB", (9, 7), (index, 1, 2)) for index in range(frames)]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(buffer, kind, **more)
    return buffer.getvalue()


def document(value):
    return json.dumps(value).encode()


def infer_body(raw, **tensor):
    size = {"parameters": {"binary_data_size": len(raw)}} if raw else {}
    return document({"inputs": [{"name": "x", "shape": [1, 2], **size, **tensor}]}) + raw


def predict_request(array, signature):
    request = PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(encode_tensor(array, content=signature == "pixels"))
    return request.SerializeToString(deterministic=True)


def infer_request(signature, raw):
    request = ModelInferRequest()
    request.parameters["signature_name"].string_param = signature
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    if raw:
        request.raw_input_contents.append(bytes(8))
    else:
        tensor.contents.fp32_contents.extend([1, 2])
    request.outputs.add(name="y")
    return request.SerializeToString(deterministic=True)


EXAMPLES = Input()
EXAMPLES.example_list.examples.add().features.feature["p"].bytes_list.value.append(picture("PNG"))

SEEDS = [
    document({"instances": [[1, 2.5], [3, 4]]}),
    document({"signature_name": "pair", "instances": [{"x": [1, 2], "z": True}]}),
    document({"signature_name": "pair", "inputs": {"x": [[1, 2]], "z": [False]}}),
    document({"signature_name": "text", "instances": ["a", {"b64": "AAAA"}]}),
    b'{"signature_name": "odd", "instances": [1, NaN, -Infinity, 1e400]}',
    document({"examples": [{"a": 1, "b": [0.5], "c": ["x", {"b64": "AA=="}]}], "context": {}}),
    infer_body(b"", datatype="FP32", data=[1, 2]),
    infer_body(bytes(8), datatype="FP32"),
    infer_body(b"\1\0\0\0a\0\0\0\0", datatype="BYTES"),
    infer_body(b"\1\0", datatype="BOOL"),
    *(npy(np.zeros((2, 2), dtype)) for dtype in ("<f4", ">f8", "?", "S3", "U2", "<c8", "V2")),
    npy(np.zeros((1, 2), [("a", "i1"), ("b", "<f4")])),
    npz(x=np.zeros((1, 2), "<f4")),
    npz(x=np.zeros((1, 2), "u1"), z=np.zeros(1, bool)),
    *(picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP")),
    picture("GIF", frames=3),
    predict_request(np.zeros((1, 2), "<f4"), ""),
    predict_request(np.zeros((1, 4, 4, 3), "u1"), "pixels"),
    predict_request(np.array([picture("PNG"), b""], object)[:1], "encoded"),
    infer_request("", raw=True),
    infer_request("encoded", raw=False),
    EXAMPLES.SerializeToString(deterministic=True),
    gzip.compress(document({"instances": [[1, 2]]}), mtime=0),
]

# What is worth putting in somewhere, besides any bytes.
PIECES = [
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"true", b"-", b"NaN", b"1e999"),
    *(b"\\ud800", b"\\u0000", b"\xff", b"\0", b"\x1b", b"[" * 2000, b"9" * 5000, b"1" * 400),
    *(b"<U0", b"|S0", b"|O", b"(-1, -4)", b"(0, 4611686018427387904)", b"'<f4', (2,)"),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", struct.pack("<I", 1 << 31), b"PK\1\2", b"PK\5\6"),
    *(b"b64", b"x.npy", b"binary_data_size", b"datatype", b"shape", b"encoded", b"[[1,2],[3]]"),
]
places = st.integers(0, 1 << 16)
pieces = st.sampled_from(PIECES) | st.binary(max_size=6)


@st.composite
def mutated(draw):
    """One of the seeds with a few pieces put in, taken out, written over or doubled."""
    body = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(places) % (len(body) + 1)
        stop = min(len(body), start + draw(st.integers(0, 8)))
        change = draw(st.sampled_from(["insert", "remove", "write", "double", "cut"]))
        piece = draw(pieces) if change in ("insert", "write") else b""
        if change == "insert":
            body = body[:start] + piece + body[start:]
        elif change == "double":
            body = body[:stop] + body[start:]
        elif change == "cut":
            body = body[:start]
        else:
            body = body[:start] + piece + body[stop:]
    return body


def message(kind, body):
    try:
        return kind.FromString(body)
    except DecodeError:
        return kind()


def valid(query):
    check_content(query, PIXELS)
    validate(query.signature, query.inputs)


DECODERS = {
    "json": lambda body, _: valid(decode_predict(body, SIGNATURES)),
    "examples": lambda body, _: check_examples(decode_examples(body).examples, PIXELS),
    "infer": lambda body, _: valid(decode_infer(body, None, SIGNATURES)),
    "infer, binary": lambda body, _: valid(
        decode_infer(body, body.find(b"}]}") + 3 if b"}]}" in body else 0, SIGNATURES)
    ),
    "npy": lambda body, name: valid(decode_npy(body, SIGNATURES, name)),
    "npz": lambda body, name: valid(decode_npz(body, SIGNATURES, LIMIT, name)),
    "image": lambda body, name: valid(decode_image(body, SIGNATURES, ImageOptions(PIXELS, name))),
    "form": lambda body, name: valid(
        decode_form({"x": [body]}, {}, SIGNATURES, ImageOptions(PIXELS, name))
    ),
    "text of a form": lambda body, name: valid(
        decode_form(
            {}, {"x": [body.decode("utf-8", "replace")]}, SIGNATURES, ImageOptions(PIXELS, name)
        )
    ),
    "PredictRequest": lambda body, _: valid(
        decode_predict_proto(message(PredictRequest, body), {}, SIGNATURES, LIMIT)
    ),
    "ModelInferRequest": lambda body, _: valid(
        decode_model_infer(message(ModelInferRequest, body), SIGNATURES)
    ),
    "Input": lambda body, _: check_examples(message(Input, body), PIXELS),
    "gzip": lambda body, _: decompress(body, "gzip", LIMIT),
    "deflate": lambda body, _: decompress(body, "deflate", LIMIT),
    "length": lambda body, _: parse_json_length(body.decode("latin-1")),
}


@pytest.mark.parametrize("decoder", DECODERS)
@settings(max_examples=300, derandomize=True)
@given(mutated(), st.sampled_from(NAMES))
def test_only_our_own_errors_come_out(decoder, body, name):
    try:
        DECODERS[decoder](body, name)
    except GatewayError as error:
        assert str(error)
        assert len(str(error)) < 1000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_every_seed_at_every_decoder(seed, name):
    body = SEEDS[seed]
    for decode in DECODERS.values():
        try:
            decode(body, name)
        except GatewayError as error:
            assert str(error)


def test_every_seed_is_something_to_a_decoder():
    """A seed that every decoder refuses would leave what it stands for untried."""
    refused = [b"(2, 2)", b"'a'", b"|V2"]  # numpy's kinds that no model takes
    for body in SEEDS:
        taken = 0
        for decode in DECODERS.values():
            for name in NAMES:
                try:
                    decode(body, name)
                    taken += 1
                except GatewayError:
                    continue
        assert taken or any(mark in body for mark in refused), body
