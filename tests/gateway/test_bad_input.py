"""Bad requests over real HTTP: each gets its status and a message that helps."""

import gzip
import io
import socket
import struct
import zlib

import numpy as np
import pytest
import requests
from PIL import Image

LIMIT = 200_000


@pytest.fixture(scope="module")
def small(launch_gateway, modelserver):
    """A gateway that takes bodies of up to LIMIT bytes."""
    return launch_gateway(modelserver.address, max_body_bytes=LIMIT, models="affine,echo")


@pytest.fixture
def post(small):
    """`post(path, **request)` -> (status, message); then a good request must still be answered."""

    def send(path="affine:predict", **request):
        reply = requests.post(f"{small.url}/v1/models/{path}", timeout=30, **request)
        return reply.status_code, reply.json()["error"]

    yield send
    good = requests.post(
        f"{small.url}/v1/models/affine:predict", json={"instances": [1]}, timeout=30
    )
    assert good.json() == {"predictions": [3.5]}


@pytest.mark.parametrize(
    ("path", "document", "status", "message"),
    [
        (
            "affine:predict",
            {"instances": [[1, 2]]},
            400,
            "inputs.x: expected float32 [N], got [1,2] (1 axes, not 2)",
        ),
        (
            "echo:predict",
            {"instances": [[1, 2, 3]]},
            400,
            "inputs.matrix: expected float32 [N,2,3], got [1,3]",
        ),
        (
            "echo:predict",
            {"inputs": [[1, 2, 3], [4, 5, 6]]},
            400,
            "got [2,3] (the batch axis is missing)",
        ),
        (
            "pair:predict",
            {"inputs": {"image": [[[1, 2], [3, 4]]], "meta": [[1, 2, 3]]}},
            400,
            "inputs.image: expected float32 [N,2,2,1], got [1,2,2] (the channel axis is missing)",
        ),
        (
            "pair:predict",
            {"inputs": {"image": [], "meta": []}},
            400,
            "inputs.image: expected float32",
        ),
        ("pair:predict", {"inputs": {"imag": 1, "meta": 1}}, 400, 'did you mean "image"?'),
        (
            "affine:predict",
            {"inputs": []},
            400,
            "inputs.x: expected at least one row, got an empty batch",
        ),
        (
            "pair:predict",
            {"inputs": {"image": [[[[1], [2]], [[3], [4]]]], "meta": [[1, 2, 3]] * 2}},
            400,
            "inputs.meta: expected 1 rows, as in inputs.image, got 2 rows",
        ),
        ("nope:predict", {"instances": [1]}, 404, "nope"),
        (
            "afine:predict",
            {"instances": [1]},
            404,
            '; did you mean "affine"? There are: "affine", "',
        ),
        ("affine/versions/9:predict", {"instances": [1]}, 404, "9"),
        (
            "affine/versions/99999999999999999999:predict",
            {"instances": [1]},
            400,
            "Malformed request",
        ),
        ("affine/labels/nope:predict", {"instances": [1]}, 400, "nope"),
        (
            "affine:predict",
            {"signature_name": "nope", "instances": [1]},
            400,
            'The model has no signature "nope"; there are: '
            '"classify", "regress", "serving_default"',
        ),
        (
            "affine:predict?verbose=1",
            {"instances": [1]},
            400,
            "query argument verbose is not known",
        ),
    ],
)
def test_json_that_does_not_fit_the_model(post, path, document, status, message):
    got_status, got_message = post(path, json=document)
    assert got_status == status, got_message
    assert message in got_message


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/affine:predict/",
        "/V1/models/affine:predict",
        "/v1//models/affine:predict",
        "/v1/models/affine:guess",
    ],
)
def test_a_path_that_is_none(small, path):
    reply = requests.post(small.url + path, json={"instances": [1]}, timeout=30)
    assert reply.status_code == 400
    assert "Malformed request" in reply.json()["error"]


def test_outside_the_api_is_not_found(small):
    reply = requests.get(f"{small.url}/nope", timeout=30)
    assert (reply.status_code, reply.json()) == (404, {"error": "Not Found: GET /nope"})


OVER = b'{"instances": [' + b"1," * LIMIT + b"1]}"


def chunks(data):
    yield from (data[start : start + 10_000] for start in range(0, len(data), 10_000))


@pytest.mark.parametrize(
    "request_",
    [
        {"data": OVER},
        {"data": chunks(OVER)},
        {"data": gzip.compress(OVER), "headers": {"Content-Encoding": "gzip"}},
        {"data": zlib.compress(b"[" * 10**8), "headers": {"Content-Encoding": "deflate"}},
        {"files": {"x": OVER}},
    ],
    ids=["length", "chunked", "gzip", "bomb", "multipart"],
)
def test_a_body_over_the_limit(post, request_):
    status, message = post(**request_)
    assert status == 413
    assert str(LIMIT) in message


def test_a_chunked_body_and_a_gzip_body_within_the_limit_are_read(small):
    url = f"{small.url}/v1/models/affine:predict"
    body = b'{"instances": [' + b"1," * 50_000 + b"1]}"
    chunked = requests.post(url, data=chunks(body), timeout=30)
    packed = requests.post(
        url, data=gzip.compress(body), headers={"Content-Encoding": "gzip"}, timeout=30
    )
    assert chunked.json() == packed.json() == {"predictions": [3.5] * 50_001}


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("br", b"x", 415),
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], 400),
    ],
)
def test_an_encoding_that_cannot_be_undone(post, encoding, data, status):
    assert post(data=data, headers={"Content-Encoding": encoding})[0] == status


def test_a_client_that_goes_away_in_mid_body_harms_nobody(post, small):
    host, port = small.url.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/models/affine:predict HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
    assert post(data=b"{")[0] == 400


def test_an_image_for_a_model_that_takes_none(post):
    status, message = post("affine:predict", data=png(2, 2), headers={"Content-Type": "image/png"})
    assert status == 415
    assert "takes no images, but x" in message


def png(width, height):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb(width, height):
    """A small, valid PNG of a huge black picture."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    squeeze = zlib.compressobj(9)
    row = bytes(width // 8 + 1)
    pixels = b"".join([*(squeeze.compress(row) for _ in range(height)), squeeze.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def images(launch_gateway, launch_modelserver, published):
    """A gateway before a trained model that takes images."""
    server = launch_modelserver(f"--model_base_path={published}", "--model_name=digits")
    return f"{launch_gateway(server.address).url}/v1/models/digits:predict"


PNG = {"Content-Type": "image/png"}


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (
            {"data": b"no image", "headers": PNG},
            400,
            "inputs.image: expected an image (JPEG, PNG, GIF, BMP, WebP), got 8 bytes that start",
        ),
        ({"data": b"", "headers": PNG}, 400, "got an empty file"),
        ({"data": png(64, 64)[:-30], "headers": PNG}, 400, ""),
        (
            {"data": png_bomb(30_000, 30_000), "headers": PNG},
            413,
            "inputs.image: expected an image of at most 50000000 pixels",
        ),
        ({"data": png_bomb(9_000, 9_000), "headers": PNG}, 413, "9000 x 9000 = 81000000"),
        ({"files": {"image": b"no image"}}, 400, "got 8 bytes that start with 6e 6f 20"),
        ({"files": {"picture": png(8, 8)}}, 400, 'has no input "picture"; there is: "image"'),
        (
            {"files": [("image", png(8, 8)), ("image", b"x")]},
            400,
            "inputs.image at file 1: expected",
        ),
        ({"data": {"image": "text"}, "files": {"image": png(8, 8)}}, 400, "expected an image file"),
        (
            {
                "data": b'--x\r\nContent-Disposition: form-data; filename="i"\r\n\r\n'
                b"i\r\n--x--\r\n",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            400,
            'has no input ""',
        ),
        (
            {"data": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "The body is not a multipart form",
        ),
        ({"data": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "no boundary"),
        (
            {"json": {"signature_name": "encoded", "instances": [{"b64": "aGk="}]}},
            400,
            "inputs.image at row 0: expected an image",
        ),
    ],
)
def test_images_that_are_none_or_too_large(images, request_, status, message):
    reply = requests.post(images, timeout=30, **request_)
    assert reply.status_code == status, reply.text
    assert message in reply.json()["error"]
    good = requests.post(images, data=png(8, 8), headers=PNG, timeout=30)
    assert good.status_code == 200, good.text


def chunked(data):
    pieces = [data[start : start + 100] for start in range(0, len(data), 100)]
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*pieces, b""])


def with_length(headers, body):
    return headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


PICTURE = png(8, 8)
CSHARP_FORM = (
    b'--"x"\r\nContent-Disposition: form-data; name=image\r\n\r\n' + PICTURE + b'\r\n--"x"--\r\n'
).replace(b'"x"', b"5d8f")
# By who writes it so: the head and the body, as they stand on the wire.
STACKS = {
    "curl -T": b"Accept: */*\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(PICTURE),
    "curl --data-binary": with_length(
        b"Content-Type: application/x-www-form-urlencoded\r\n", PICTURE
    ),
    "curl, .NET Framework: Expect": b"Content-Type: application/octet-stream\r\n"
    b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(PICTURE),
    "C# MultipartFormDataContent": with_length(
        b'Content-Type: multipart/form-data; boundary="5d8f"\r\n', CSHARP_FORM
    ),
    "fetch, a form with a header by hand": with_length(
        b"content-type: multipart/form-data\r\naccept: */*\r\nsec-fetch-mode: cors\r\n", CSHARP_FORM
    ),
    "Go http.Post": with_length(
        b"content-type: \r\nuser-agent: Go-http-client/1.1\r\naccept-encoding: gzip\r\n", PICTURE
    ),
    "Java HttpURLConnection": with_length(
        b"Content-Type: application/x-www-form-urlencoded\r\nAccept: text/html, image/gif, "
        b"image/jpeg, *; q=.2, */*; q=.2\r\n",
        PICTURE,
    ),
    "gzip": with_length(
        b"content-type: application/octet-stream\r\ncontent-encoding: gzip\r\n",
        gzip.compress(PICTURE),
    ),
    "C# StringContent": with_length(
        b"Content-Type: text/plain; charset=utf-8\r\n",
        b'\xef\xbb\xbf{"inputs": [[%b]]}' % b",".join([b"[[0]" + b",[0]" * 7 + b"]"] * 8),
    ),
}


@pytest.mark.parametrize("stack", STACKS)
def test_what_clients_write_when_nobody_tells_them_how_is_read(images, stack):
    host, port = images.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(
            b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            + STACKS[stack]
        )
        with connection.makefile("rb") as answer:
            said = answer.read()
    assert b"HTTP/1.1 200 " in said, said
    assert b'"label' in said or b'"outputs"' in said
