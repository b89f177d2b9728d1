"""What people in a hurry send: it is read, or the answer names what it is and what to do."""

import base64
import gzip
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from service.gateway.decode.images import ImageOptions, check_content, decode_form
from service.gateway.decode.magic import FORM, IMAGE, NPY, NPZ, kind_of
from service.gateway.decode.oip import decode_infer
from service.gateway.decode.slips import check_whole
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.encode.tfs_json import encode_predict
from service.gateway.errors import (
    GatewayError,
    InvalidInput,
    MalformedRequest,
    UnbatchedOutput,
    UnknownInput,
)
from service.gateway.http import HttpRequest
from service.gateway.query import TfsQuery
from service.gateway.routes.forms import MAX_PARTS, read_form
from service.gateway.signatures import Signatures
from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef
from sluice.wire.tensors import encode_shape


def picture(kind="PNG", size=(8, 8)):
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def numpy_file(save):
    buffer = io.BytesIO()
    save(buffer, np.zeros(3))
    return buffer.getvalue()


def form(*fields, boundary=b"xyz"):
    parts = [b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content for head, content in fields]
    return b"\r\n".join([*parts, b"--" + boundary + b"--\r\n"])


def signature_of(dtype, shape):
    proto = SignatureDef()
    for side in (proto.inputs, proto.outputs):
        side["x"].dtype = dtype
        side["x"].tensor_shape.CopyFrom(encode_shape(shape))
    return proto


NUMBERS = Signatures({"serving_default": signature_of(DataType.DT_FLOAT, [-1])})
SCALAR = Signatures({"serving_default": signature_of(DataType.DT_FLOAT, [])})
FILES = Signatures(
    {
        "serving_default": signature_of(DataType.DT_FLOAT, [-1, 8, 8, 3]),
        "encoded": signature_of(DataType.DT_STRING, [-1]),
    }
)
PNG = picture()
FIELD = b'Content-Disposition: form-data; name="x"'


@pytest.mark.parametrize(
    "header",
    [
        "",
        "application/octet-stream",
        "text/plain; charset=utf-8",
        "application/x-www-form-urlencoded",
        "application/json",
    ],
)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        *((picture(name), IMAGE) for name in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")),
        (numpy_file(np.save), NPY),
        (numpy_file(np.savez), NPZ),
        (form((FIELD, PNG)), FORM),
        (b'{"instances": []}', None),
        (b"instances=1", None),
        (b"", None),
    ],
)
def test_a_body_is_what_its_first_bytes_say(body, kind, header):
    assert kind_of(body, header) == kind


def test_the_content_type_says_what_the_bytes_do_not():
    assert kind_of(b"no picture", "image/png") == IMAGE
    assert kind_of(b"no file", NPY) == NPY
    assert kind_of(b"preamble", FORM) == FORM
    assert kind_of(b'{"instances": []}', "image/png") is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_picture_that_curls_d_has_cut_is_told_so(kind):
    whole = picture(kind, (64, 64))
    check_whole(whole)
    check_whole(b"no picture at all")
    with pytest.raises(MalformedRequest, match="--data-binary @FILE"):
        check_whole(whole.translate(None, b"\r\n\0"))


def sluice_json(text):
    return json.dumps(text).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty; send JSON"),
        (b"instances=1&instances=2", "it is a URL-encoded form; send JSON"),
        (b"{'instances': [1]}", "it is as Python prints it; send what json.dumps writes"),
        (b'{"instances": [None]}', "it is as Python prints it"),
        (b'{"instances": array([1, 2])}', "it is as Python prints it"),
        (b'{"instances": [nan]}', "written NaN, Infinity and -Infinity"),
        (b'{"instances": [-inf]}', "written NaN, Infinity and -Infinity"),
        (b"\x80\x04\x95\x00\x00", "it is a pickle of Python's"),
        (sluice_json('{"instances": [1]}'), "it is a string that holds JSON, which was encoded tw"),
        (b"[object Object]", "send JSON.stringify(document)"),
        (b"three.png", "it is the name of a file; send the file itself (curl: --data-binary @FILE"),
        (b"@request.json", "it is the name of a file"),
        (base64.b64encode(PNG), "it is a file in base64; send the file itself"),
        (b"data:image/png;base64," + base64.b64encode(PNG), "it is a file in base64"),
        ('{"instances": [1]}'.encode("utf-16"), "it is UTF-16 or UTF-32; send UTF-8"),
        ('{"instances": [1]}'.encode("utf-16-le"), "it is UTF-16 or UTF-32; send UTF-8"),
        (gzip.compress(b'{"instances": [1]}', mtime=0), "the header Content-Encoding: gzip"),
        (b"<html></html>", "it is HTML or XML"),
        (PNG, "it is a picture, which POST /v1/models/MODEL:predict takes"),
        (numpy_file(np.save), "it is a numpy file, which POST /v1/models/MODEL:predict takes"),
        (form((FIELD, b"1")), "it is a form, which POST /v1/models/MODEL:predict takes"),
        (b"[1, 2]", 'expected {"instances": [...]} or {"inputs": ...}'),
        (b'{"instances": [1,]}', "is not JSON: "),
    ],
)
def test_what_is_no_json_is_told_from_what_it_is(body, said):
    for decode in (
        lambda: decode_predict(body, NUMBERS),
        lambda: decode_infer(body, None, NUMBERS),
    ):
        with pytest.raises(MalformedRequest) as raised:
            decode()
        assert said in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": ["well, None of it: nan, inf"] "x"}',
        b'{"instances": ["x=1&y=2", ["True and array(1)"}',
        b"\0\0\1\0\x80 binary",
    ],
)
def test_no_cause_is_made_up(body):
    with pytest.raises(MalformedRequest) as raised:
        decode_predict(body, NUMBERS)
    assert not re.search("Python|written|UTF-16|URL", str(raised.value))


@pytest.mark.parametrize("body", [b"a=b&" * 100_000 + b" ", b"{ " * 50_000, b"[ ," * 50_000])
def test_no_time_is_spent_on_a_long_body_that_is_none(body):
    with pytest.raises(MalformedRequest):
        decode_predict(body, NUMBERS)


@pytest.mark.parametrize(
    ("known", "document", "said"),
    [
        (NUMBERS, {"instance": [1]}, "got neither; did you mean 'instances' by 'instance'?"),
        (NUMBERS, {"Inputs": [1]}, "got neither; did you mean 'inputs' by 'Inputs'?"),
        (NUMBERS, {"x": [1]}, 'got neither; the inputs stand below them: {"inputs": {"x": ...}}'),
        (NUMBERS, {"data": [1]}, "got neither"),
        (SCALAR, {"instances": [1]}, 'use columns: {"inputs": {"x": ..., ...}}'),
        (SCALAR, {"instances": [{"x": 1}]}, "inputs.x: expected float32 [], one for all rows"),
        (FILES, {"instances": [{"b64": "aGk="}]}, 'say "signature_name": "encoded" beside it'),
        (FILES, {"inputs": {"x": [{"b64": "aGk="}]}}, 'say "signature_name": "encoded" beside it'),
        (
            NUMBERS,
            {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]},
            "that is the Open Inference Protocol; POST it to /v2/models/MODEL/infer",
        ),
    ],
)
def test_a_document_of_another_kind_is_told_which(known, document, said):
    with pytest.raises(GatewayError) as raised:
        decode_predict(json.dumps(document).encode(), known)
    assert said in str(raised.value)


def test_tensorflow_servings_json_is_told_where_to_go():
    with pytest.raises(MalformedRequest, match="goes to /v1/models/MODEL:predict"):
        decode_infer(b'{"instances": [1]}', None, NUMBERS)


def test_a_scalar_goes_in_columns():
    assert decode_predict(b'{"inputs": {"x": 1.5}}', SCALAR).inputs["x"] == 1.5


def test_a_mark_before_the_json_is_passed_over():
    query = decode_predict(b'\xef\xbb\xbf{"instances": [1]}\r\n', NUMBERS)
    assert query.inputs["x"].tolist() == [1]


@pytest.mark.parametrize(
    "text",
    [
        base64.urlsafe_b64encode(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        base64.encodebytes(PNG).decode(),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "data:image/png;charset=utf-8;base64," + base64.encodebytes(PNG).decode(),
    ],
)
def test_base64_is_read_as_browsers_write_it(text):
    body = {"signature_name": "encoded", "instances": [{"b64": text}]}
    assert decode_predict(json.dumps(body).encode(), FILES).inputs["x"].tolist() == [PNG]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (base64.b64encode(PNG), 'its base64; within JSON that is {"b64": "..."}'),
        (b"data:image/png;base64," + base64.b64encode(PNG), "its base64"),
        (b"photos/three.png", "the name of a file, not what is in it"),
    ],
)
def test_what_stands_for_a_picture_is_told_from_one(text, said):
    body = {"signature_name": "encoded", "instances": [text.decode()]}
    query = decode_predict(json.dumps(body).encode(), FILES)
    with pytest.raises(InvalidInput) as raised:
        check_content(query, 100)
    assert str(raised.value).startswith("inputs.x at row 0: expected an image")
    assert f"({said}" in str(raised.value)


# Forms


def read(body, content_type="multipart/form-data; boundary=xyz"):
    return read_form(HttpRequest("POST", "/", "", {"content-type": content_type}, body))


def in_quoted_printable(data):
    return b"".join(b"=%02X" % byte for byte in data)


@pytest.mark.parametrize(
    ("head", "content"),
    [
        (FIELD + b'; filename="a.png"', PNG),
        (FIELD, PNG),  # C#: form.Add(new ByteArrayContent(data), "x")
        (b"content-disposition: form-data; name=x; filename=a.png", PNG),
        (FIELD + b"\r\nContent-Transfer-Encoding: base64", base64.encodebytes(PNG)),
        (FIELD + b"\r\nContent-Transfer-Encoding: quoted-printable", in_quoted_printable(PNG)),
        (FIELD + b"\r\nContent-Transfer-Encoding: binary", PNG),
    ],
)
@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data; boundary=xyz", "multipart/form-data", "application/json", ""],
)
def test_a_picture_in_a_form_is_a_file(head, content, content_type):
    assert read(form((head, content)), content_type) == ({"x": [PNG]}, {})


def test_fields_keep_their_order():
    fields = [(FIELD, b"1"), (FIELD, "é".encode()), (b"Content-Disposition: form-data", b"2")]
    assert read(form(*fields)) == ({}, {"x": ["1", "é"], "": ["2"]})


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"--x", "multipart/form-data", "names no boundary, and its body begins with none"),
        (b"--x", "multipart/form-data; boundary=x", "The body is not a multipart form"),
        (
            form((FIELD, b"\xff")),
            "multipart/form-data; boundary=xyz",
            '"x" has no file name and is',
        ),
        (
            form((FIELD + b"\r\nContent-Transfer-Encoding: x-uuencode", b"1")),
            "multipart/form-data; boundary=xyz",
            'the Content-Transfer-Encoding "x-uuencode", which is not read',
        ),
        (
            form((FIELD + b"\r\nContent-Transfer-Encoding: base64", b"aGk=!")),
            "multipart/form-data; boundary=xyz",
            'The field "x" is not the base64 that it is said to be',
        ),
        (
            form(*[(FIELD, b"1")] * (MAX_PARTS + 1)),
            "multipart/form-data; boundary=xyz",
            f"more than {MAX_PARTS} fields",
        ),
    ],
)
def test_a_form_that_cannot_be_read(body, content_type, said):
    with pytest.raises(MalformedRequest) as raised:
        read(body, content_type)
    assert said in str(raised.value)


def test_a_form_of_texts_is_for_any_model():
    query = decode_form({}, {"x": ["1.5", "2"]}, NUMBERS, ImageOptions(100))
    assert query.inputs["x"].tolist() == [1.5, 2]


def test_a_document_in_a_field_is_told_to_go_alone():
    with pytest.raises(UnknownInput, match="a JSON document is the body by itself"):
        decode_form({}, {"json": ['{"instances": [1]}']}, NUMBERS, ImageOptions(100))


# Answers to files


def test_a_file_is_answered_in_columns_where_an_output_has_no_rows():
    outputs = {"mean": np.float32(2.5)}
    inputs = {"x": np.zeros((2, 8, 8, 3), np.float32)}
    file = TfsQuery(FILES.get(), inputs, is_file=True)
    assert encode_predict(outputs, file) == b'{"outputs":2.5}'
    assert encode_predict({"y": np.float32([1, 2])}, file) == b'{"predictions":[1.0,2.0]}'
    with pytest.raises(UnbatchedOutput):
        encode_predict(outputs, TfsQuery(FILES.get(), inputs))
