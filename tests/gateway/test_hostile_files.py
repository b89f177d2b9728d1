"""Files that lie: numpy's, pictures, and what is compressed."""

import gzip
import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.gateway.decode import content_encoding
from service.gateway.decode.content_encoding import FREE_BYTES, MAX_RATIO, decompress, inflate
from service.gateway.decode.images import (
    ImageOptions,
    check_content,
    check_examples,
    check_image,
    decode_image,
)
from service.gateway.decode.numpy_files import decode_npy, decode_npz, read_npy
from service.gateway.decode.oip import decode_infer
from service.gateway.decode.tfs_proto import decode_predict
from service.gateway.encode.numpy_files import encode_npy
from service.gateway.errors import (
    GatewayError,
    InputTooLarge,
    InvalidInput,
    MalformedRequest,
    PayloadTooLarge,
    UnknownInput,
    UnsupportedMediaType,
)
from service.gateway.query import Query
from service.gateway.signatures import Signatures, validate
from sluice.pictures.gif import MAX_BLOCKS, pixels_of_frames
from sluice.wire.protos.serving_pb2 import Input, PredictRequest
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo
from sluice.wire.tensors import encode_shape, encode_tensor
from tests.gateway.numpy_files import npy

FLOATS = TensorInfo(dtype=1, tensor_shape=encode_shape([-1, 2]))
PIXELS = TensorInfo(dtype=1, tensor_shape=encode_shape([-1, 8, 8, 3]))
STRINGS = TensorInfo(dtype=7, tensor_shape=encode_shape([-1]))
SIGNATURES = Signatures(
    {
        "serving_default": SignatureDef(inputs={"x": FLOATS}),
        "encoded": SignatureDef(inputs={"x": STRINGS}),
        "text": SignatureDef(inputs={"x": STRINGS}),
        "pair": SignatureDef(inputs={"x": FLOATS, "z": STRINGS}),
        "pixels": SignatureDef(inputs={"x": PIXELS}),
    }
)
LIMIT = 1 << 20


def header(descr, shape, order=False):
    """A .npy file of no elements that says so."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


# .npy


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("'<U0'", "(10000000000,)"), "elements of the dtype <U0; expected booleans"),
        (header("'|S0'", "(4000000000,)"), r"elements of the dtype \|S0"),
        (header("'|V0'", "(4000000000,)"), r"elements of the dtype \|V0"),
        (header("('<f4', (0,))", "(4000000000,)"), "elements of the dtype"),
        (header("('<f4', (2,))", "(0,)"), "elements of the dtype"),
        (header("[('a', '<f4'), ('b', 'i1')]", "(0,)"), "elements of the dtype"),
        (header("[]", "(4000000000,)"), "elements of the dtype"),
        (header("'|V8'", "(0,)"), "elements of the dtype"),
        (header("'<M8[s]'", "(0,)"), "elements of the dtype"),
        (header("'<m8'", "(0,)"), "elements of the dtype"),
        (header("[('a', 'O')]", "(0,)"), "Python objects, which are not read"),
        (header("'<f4'", "(-1, -4)"), r"\[-1, -4\], with a size below 0"),
        (header("'<f4'", "(-1,)"), "with a size below 0"),
        (header("'<f4'", repr((1,) * 100)), "100 axes, where 64 is the most"),
        (header("'<f4'", "(0, 4611686018427387904, 4)"), "too large for no elements"),
        (header("'<f4'", "(1000000000000, 0)"), "too large for no elements"),
        (header("'|S1000000000'", "(2,)"), "take 2000000000 bytes, and holds 0 bytes"),
        (header("'<f4'", "(9" + "9" * 400 + ",)"), "which is too large"),
        (header("'<f4'", "(True,)"), "no list of whole numbers"),
        (header("'<f4'", "(1.0,)"), "cannot be read as a .npy file"),
        (header("'<f4'", "5"), "cannot be read as a .npy file"),
        (header("'<f4'", "(" * 500 + ")" * 500), "cannot be read as a .npy file"),
        (header("'<f4'", "(1," + " " * 20_000 + ")"), "cannot be read as a .npy file"),
        (header("'nope'", "(1,)"), "cannot be read as a .npy file"),
        (npy(np.array([0, 1, 0], bool))[:-1] + b"\2", "booleans that are neither 0 nor 1"),
        (npy(np.array(["a"]))[:-4] + b"\xff\xff\xff\x7f", "text that is no Unicode"),
        (npy(np.array(["a"]))[:-4] + struct.pack("<I", 0xD800), "text that is no Unicode"),
        (npy(np.zeros(2**20 + 1, "S1")), "1048577 strings, and at most 1048576 are read"),
        (npy(np.zeros((2**10, 2**11), "<U1")), "2097152 strings"),
    ],
)
def test_an_npy_file_that_numpy_would_not_write(data, message):
    tracemalloc.start()
    try:
        with pytest.raises(MalformedRequest, match=message):
            decode_npy(data, SIGNATURES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data) + LIMIT


def test_text_takes_a_few_times_its_own_memory():
    texts = npy(np.array([f"{index:016}" for index in range(100_000)]))
    tracemalloc.start()
    try:
        strings = read_npy(texts, "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert strings[99_999] == b"0000000000099999"
    assert peak < 4 * len(texts)


def test_empty_strings_are_read_back():
    data = encode_npy({"x": np.array([b"", b""], object)})
    assert read_npy(data, "x").tolist() == [b"", b""]


# .npz


def npz(*members, compression=zipfile.ZIP_STORED):
    """An archive of (name, data) pairs, of which a name may come twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that comes twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


ONES = npy(np.ones((1, 2), "<f4"))


def lying(size):
    """A member that says it unpacks to `size` bytes, and unpacks to 50 MB."""
    honest = npz(("x.npy", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED)
    return honest.replace(struct.pack("<I", 50_000_000), struct.pack("<I", size))


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (npz(("x.npy", ONES), ("x.npy", ONES)), MalformedRequest, 'has the member "x.npy" twice'),
        (npz(("x.npy", ONES), ("y.npy", ONES)), UnknownInput, 'no input for the member "y.npy"'),
        (npz(("a/x.npy", ONES)), UnknownInput, 'no input for the member "a/x.npy"'),
        (npz(("../x.npy", ONES)), UnknownInput, "no input for the member"),
        (npz(("x", ONES)), UnknownInput, 'the member "x"; expected an input\'s name and .npy'),
        (npz(("x.npy/", b"")), UnknownInput, "no input for the member"),
        (npz(("\x1b[31m\n.npy", ONES)), UnknownInput, r"\\x1b\[31m"),
        (
            npz(("x.npy", ONES), compression=zipfile.ZIP_BZIP2),
            MalformedRequest,
            "packed by a method",
        ),
        (
            npz(("x.npy", ONES), compression=zipfile.ZIP_LZMA),
            MalformedRequest,
            "packed by a method",
        ),
        (npz(*((f"{index}.npy", b"") for index in range(1001))), MalformedRequest, "1000 members"),
        (npz(("x.npy", bytes(LIMIT + 1))), PayloadTooLarge, "larger than the limit"),
        (npz(("x.npy", bytes(LIMIT // 2)), ("x.npy", bytes(LIMIT))), PayloadTooLarge, "larger"),
        (npz(("x.npy", ONES[:-1])), MalformedRequest, "x.npy declares float32"),
        (lying(1000), MalformedRequest, "x.npy cannot be read as a .npy file|cannot be read"),
        (b"PK\5\6" + bytes(18), UnknownInput, 'needs the missing input "x"'),
    ],
)
def test_an_npz_file_that_lies(body, error, message):
    tracemalloc.start()
    try:
        with pytest.raises(error, match=message):
            query = decode_npz(body, SIGNATURES, LIMIT)
            validate(query.signature, query.inputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * LIMIT


def test_an_npz_file_of_an_honest_size_is_read():
    body = npz(("x.npy", ONES), ("z.npy", npy(np.array([b"a"]))), compression=zipfile.ZIP_DEFLATED)
    query = decode_npz(body, SIGNATURES, LIMIT, "pair")
    np.testing.assert_array_equal(query.inputs["x"], [[1, 1]])
    assert query.inputs["z"].tolist() == [b"a"]


# Pictures


def picture(width, height, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, kind, **options)
    return buffer.getvalue()


def animation(frames, width=20, height=10):
    """A GIF, each frame of which differs from the last."""
    buffer = io.BytesIO()
    images = [Image.new("L", (width, height), index) for index in range(frames)]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], disposal=2)
    return buffer.getvalue()


KINDS = ("PNG", "JPEG", "GIF", "BMP")


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_as_many_pixels_as_are_allowed(kind):
    data = picture(20, 10, kind)
    check_image(data, "x", "", 200)
    with pytest.raises(
        InputTooLarge, match="expected an image of at most 199 pixels, got 20 x 10 "
    ):
        check_image(data, "x", "", 199)


def test_all_frames_of_an_animation_count():
    data = animation(7)
    assert pixels_of_frames(data) == 7 * 200
    check_image(data, "x", "", 1400)
    with pytest.raises(InputTooLarge, match="at most 1399 pixels, got 1400 in all frames"):
        check_image(data, "x", "", 1399)


def test_a_frame_larger_than_its_screen_counts_as_it_is():
    data = bytearray(animation(2))
    place = data.rindex(b"\x2c\0\0\0\0\x14\0\x0a\0")  # the second frame's 20 x 10
    data[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(InputTooLarge, match=f"{200 + 65535**2} in all frames"):
        check_image(bytes(data), "x", "", 10_000)


def test_a_frame_far_beyond_its_screen_counts_with_what_lies_between():
    data = bytearray(animation(1))
    place = data.rindex(b"\x2c\0\0\0\0\x14\0\x0a\0")
    data[place + 1 : place + 5] = b"\xff\xff\xff\xff"  # left and top
    with pytest.raises(InputTooLarge, match=f"65555 x 65545 = {65555 * 65545}"):
        check_image(bytes(data), "x", "", 10_000)


def moving_webp():
    buffer = io.BytesIO()
    images = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    images[0].save(buffer, "WEBP", save_all=True, append_images=images[1:])
    return buffer.getvalue()


def test_an_animated_webp_reaches_no_graph():
    """TensorFlow's own decoder writes outside of its memory for one."""
    data = moving_webp()
    check_content(Query(SIGNATURES.get("encoded"), {"x": strings(data)}), 10_000)  # becomes PNG
    with pytest.raises(InvalidInput, match="expected a WebP file of one picture"):
        check_content(Query(SIGNATURES.get("text"), {"x": strings(data)}), 10_000)
    with pytest.raises(
        InvalidInput, match=r"inputs\.picture at example 1: expected a WebP file of"
    ):
        check_examples(examples(data), 10_000)
    with pytest.raises(InputTooLarge, match="got 20 x 10 = 200"):
        check_content(Query(SIGNATURES.get("encoded"), {"x": strings(data)}), 199)


@pytest.mark.parametrize(
    "blocks", [b"\x21\x01\0" * (MAX_BLOCKS + 1), b"\x21\x01" + b"\1a" * MAX_BLOCKS]
)
def test_a_gif_of_too_many_blocks_is_not_followed(blocks):
    data = animation(1)
    assert pixels_of_frames(data[:-1] + blocks + b"\0;") is None
    with pytest.raises(InvalidInput, match="a GIF of at most 262144 blocks"):
        check_image(data[:-1] + blocks + b"\0;", "x", "", 10_000)


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_a_gif_that_breaks_off_is_followed_to_its_end(length):
    assert pixels_of_frames(animation(2)[:length]) in (0, 200, 400)


def png_of(width, height):
    """The beginning of a PNG, as far as a header is read."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    head = struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 9) + b"IDAT"


def test_the_limit_is_ours_also_above_pillows_own():
    data = png_of(20_000, 20_000)  # Pillow refuses more than 178,956,970 by itself
    check_image(data, "x", "", 400_000_000)
    with pytest.raises(
        InputTooLarge, match="at most 399999999 pixels, got 20000 x 20000 = 400000000"
    ):
        check_image(data, "x", "", 399_999_999)


def test_a_size_is_looked_for_in_the_first_megabytes_only():
    with pytest.raises(InvalidInput, match="expected an image"):
        check_image(
            b"\xff\xd8" + b"\xff\xe5\0\2" * (2 << 20) + picture(8, 8, "JPEG")[2:], "x", "", 99
        )


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF"]
)
def test_what_is_no_picture_is_said_in_plain_words(data):
    start = f"{len(data)} bytes that start with {data.hex(' ')}" if data else "an empty file"
    with pytest.raises(InvalidInput) as raised:
        check_image(data, "x", "row 1", 100)
    assert str(raised.value) == (
        f"inputs.x at row 1: expected an image (JPEG, PNG, GIF, BMP, WebP), got {start}"
    )


BOMB = png_of(30_000, 30_000)


def strings(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def as_npy(data):
    return decode_npy(npy(np.array([data])), SIGNATURES, "encoded")


def as_npz(data):
    return decode_npz(npz(("x.npy", npy(np.array([data])))), SIGNATURES, LIMIT, "encoded")


def as_predict_request(data, signature="encoded"):
    request = PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(encode_tensor(strings(data)))
    return decode_predict(request, {}, SIGNATURES, LIMIT)


def as_raw_tensor(data):
    raw = struct.pack("<I", len(data)) + data
    head = (
        b'{"parameters": {"signature_name": "encoded"}, "inputs": [{"name": "x", "shape": [1], '
        b'"datatype": "BYTES", "parameters": {"binary_data_size": %d}}]}' % len(raw)
    )
    return decode_infer(head + raw, len(head), SIGNATURES)


@pytest.mark.parametrize("decode", [as_npy, as_npz, as_predict_request, as_raw_tensor])
def test_a_bomb_is_refused_however_it_comes(decode):
    with pytest.raises(InputTooLarge, match="30000 x 30000"):
        check_content(decode(BOMB), 10_000)
    check_content(decode(picture(8, 8)), 10_000)


@pytest.mark.parametrize("data", [BOMB, animation(51), b"\xff\xd8\xff damaged"])
def test_a_picture_is_one_for_any_signature_that_takes_strings(data):
    for query in (
        Query(SIGNATURES.get("text"), {"x": strings(b"", data)}),
        Query(SIGNATURES.get("text"), {"x": strings(b"", data).reshape(2, 1)}),
    ):
        with pytest.raises(InvalidInput, match=r"inputs\.x at row 1: expected an image"):
            check_content(query, 10_000)
    with pytest.raises(InvalidInput, match="expected an image"):
        check_content(as_predict_request(data, "text"), 10_000)


@pytest.mark.parametrize(
    "data", [b"", b"BMW is a text", b"some text", b"\x89", picture(8, 8), animation(2)]
)
def test_other_strings_are_left_alone(data):
    query = Query(SIGNATURES.get("text"), {"x": strings(data)})
    assert check_content(query, 10_000) is query
    if not data.startswith((b"\x89PNG", b"GIF")):
        with pytest.raises(InvalidInput):
            check_content(Query(SIGNATURES.get("encoded"), {"x": strings(data)}), 10_000)


def test_numbers_and_unknown_names_are_left_to_the_signatures_rules():
    query = Query(SIGNATURES.get("encoded"), {"x": np.zeros(1), "y": strings(BOMB)})
    assert check_content(query, 100) is query


def examples(data, context=False):
    given = Input()
    if context:
        given.example_list_with_context.examples.add()
        example = given.example_list_with_context.context
    else:
        given.example_list.examples.add()
        example = given.example_list.examples.add()
    example.features.feature["picture"].bytes_list.value.extend([b"text", data])
    example.features.feature["number"].int64_list.value.append(1)
    return given


@pytest.mark.parametrize("data", [BOMB, animation(51)])
def test_a_picture_among_the_features_of_examples(data):
    with pytest.raises(
        InputTooLarge, match=r"inputs\.picture at example 1: expected an image of at most"
    ):
        check_examples(examples(data), 10_000)
    with pytest.raises(
        InputTooLarge, match=r"inputs\.picture at context: expected an image of at most"
    ):
        check_examples(examples(data, context=True), 10_000)
    shared = Input()
    shared.example_list_with_context.examples.add().CopyFrom(
        examples(data).example_list.examples[1]
    )
    with pytest.raises(InputTooLarge, match=r"inputs\.picture at example 0"):
        check_examples(shared, 10_000)


@pytest.mark.parametrize("data", [b"", b"text", picture(8, 8), b"BMW is a text"])
def test_other_features_are_left_alone(data):
    for given in (examples(data), examples(data, context=True), Input()):
        before = given.SerializeToString(deterministic=True)
        assert check_examples(given, 10_000) is given
        assert given.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_picture_is_an_invalid_input(kind):
    data = bytearray(picture(64, 64, kind))
    options = ImageOptions(10_000, "pixels")
    for place in range(len(data) // 2, len(data), 7):
        broken = bytes(data[:place]) + bytes(byte ^ 0x55 for byte in data[place:])
        try:
            decode_image(broken, SIGNATURES, options)
        except GatewayError as error:
            assert str(error)


# Compressed bodies

PACKED = gzip.compress(b"{}", mtime=0)


def test_what_was_packed_is_unpacked():
    body = np.random.default_rng(0).bytes(3_000_000) + bytes(1_000_000)
    packed = {
        "gzip": gzip.compress(body),
        " X-GZIP": gzip.compress(body),
        "deflate": zlib.compress(body),
        "identity": body,
    }
    for encoding, data in packed.items():
        assert decompress(data, encoding, len(body)) == body
        one_by_one = (data[start : start + 999] for start in range(0, len(data), 999))
        assert b"".join(inflate(one_by_one, encoding, len(body))) == body
        with pytest.raises(PayloadTooLarge):
            decompress(data, encoding, len(body) - 1)


@pytest.mark.parametrize(
    ("encoding", "body", "error", "message"),
    [
        ("gzip", PACKED * 2, MalformedRequest, "behind the end of its gzip"),
        ("gzip", PACKED + b"x", MalformedRequest, "behind the end of its gzip"),
        ("deflate", zlib.compress(b"{}") + b"x", MalformedRequest, "behind the end of its deflate"),
        ("gzip", PACKED[:-1], MalformedRequest, "gzip ends too early"),
        ("gzip", b"", MalformedRequest, "gzip ends too early"),
        ("gzip", zlib.compress(b"{}"), MalformedRequest, "not the gzip that it is said to be"),
        ("deflate", PACKED, MalformedRequest, "not the deflate that it is"),
        ("deflate", zlib.compress(b"{}", wbits=-15), MalformedRequest, "not the deflate"),
        ("gzip", PACKED[:-8] + bytes(8), MalformedRequest, "not the gzip"),
        ("br", b"{}", UnsupportedMediaType, 'Content-Encoding "br" is not read; use gzip'),
        ("gzip, gzip", b"{}", UnsupportedMediaType, "is not read"),
        ("g" * 1000, b"{}", UnsupportedMediaType, r"ggg\.\.\."),
    ],
)
def test_what_is_not_packed_as_it_says(encoding, body, error, message):
    for chunks in ([body], [body[:3], body[3:]], [bytes([byte]) for byte in body]):
        with pytest.raises(error, match=message):
            b"".join(inflate(chunks, encoding, 100))


def test_a_bomb_is_given_up_early():
    bomb = zlib.compress(bytes(60_000_000), 9)
    sizes = []
    with pytest.raises(MalformedRequest, match=f"more than {MAX_RATIO} times what was sent"):
        sizes.extend(len(piece) for piece in inflate([bomb], "deflate", 64 << 20))
    assert sum(sizes) <= MAX_RATIO * len(bomb)
    assert max(sizes) <= 1 << 20


def test_black_pictures_pass_while_they_are_few():
    black = b'{"instances": [' + b"0.0, " * (FREE_BYTES // 5 - 10) + b"0.0]}"
    assert decompress(gzip.compress(black), "gzip", FREE_BYTES) == black


def test_unpacking_takes_as_long_as_there_is_to_unpack():
    """What zlib has not read is copied for each piece: in one slice that would be 4 GB."""
    body = np.random.default_rng(0).bytes(64 << 20)
    run = [
        sys.executable,
        "-c",
        "import sys, time, zlib; from service.gateway.decode.content_encoding import decompress\n"
        "body = sys.stdin.buffer.read(); packed = zlib.compress(body, 1)\n"
        "began = time.process_time(); zlib.decompress(packed); once = time.process_time()\n"
        "assert decompress(packed, 'deflate', len(body)) == body\n"
        "print((time.process_time() - once) / (once - began))",
    ]
    ratio = subprocess.run(
        run, input=body, capture_output=True, check=True, cwd=Path(__file__).parents[2]
    ).stdout
    assert float(ratio) < 4
    assert content_encoding._SLICE_BYTES < 1 << 20
