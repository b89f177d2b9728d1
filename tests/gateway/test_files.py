"""Image files and numpy files in, numpy files out, and the labels that are kept."""

import io
import zipfile

import numpy as np
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from service.gateway.decode.magic import NPY, NPZ
from service.gateway.decode.numpy_files import read_npy
from service.gateway.decode.pixels import decode_pixels
from service.gateway.encode.labels import keep_best
from service.gateway.encode.numpy_files import encode_npy, encode_npz
from service.gateway.errors import InvalidInput, MalformedRequest, NotAcceptable
from sluice.wire.signature import TensorSpec
from tests.gateway.numpy_files import npy, npz


def file_of(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def spec(height=8, width=8, channels=3, dtype="<f4"):
    return TensorSpec("image", np.dtype(dtype), (None, height, width, channels))


GRADIENT = Image.fromarray(
    np.arange(64 * 48 * 3, dtype=np.uint32).reshape(64, 48, 3).astype(np.uint8)
)


def test_an_image_of_the_models_own_size_is_taken_pixel_by_pixel():
    pixels = decode_pixels(file_of(GRADIENT), spec(64, 48), "stretch", "")
    assert pixels.dtype == np.uint8, "widened where the model is to get it wider"
    np.testing.assert_array_equal(pixels, np.asarray(GRADIENT))


def test_pixels_that_a_narrow_dtype_does_not_hold_are_what_numpy_makes_of_them():
    assert decode_pixels(file_of(GRADIENT), spec(dtype="i1"), "stretch", "").dtype == np.int8


def test_where_the_model_leaves_the_size_open_it_is_the_files():
    assert decode_pixels(file_of(GRADIENT), spec(None, None), "stretch", "").shape == (64, 48, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_the_declared_channels(mode, channels):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    plain = Image.new("I;16" if mode == "I;16" else "RGB", (8, 8))
    source = plain if mode == "I;16" else plain.convert(mode)
    assert decode_pixels(file_of(source, kind), spec(channels=channels), "fit", "").shape == (
        8,
        8,
        channels,
    )


@pytest.mark.parametrize(
    ("channels", "seen"), [(1, [235]), (3, [231, 235, 239]), (4, [135, 155, 175, 51])]
)
def test_what_is_transparent_shows_white_unless_the_model_takes_alpha(channels, seen):
    faint = Image.new("RGBA", (8, 8), (135, 155, 175, 51))
    pixels = decode_pixels(file_of(faint), spec(channels=channels), "fit", "")
    np.testing.assert_allclose(pixels[0, 0], seen, atol=1)


def test_exif_turns_a_photo_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    half = Image.new("RGB", (16, 8))
    half.paste((255, 255, 255), (0, 0, 8, 8))  # the left half is white
    turned = decode_pixels(file_of(half, "JPEG", exif=exif, quality=100), spec(16, 8), "fit", "")
    assert turned[0].mean() > 250 > 5 > turned[-1].mean(), "now the upper half"


@pytest.mark.parametrize(
    ("resize", "corner", "middle"), [("stretch", 255, 255), ("fit", 0, 255), ("crop", 255, 255)]
)
def test_three_ways_to_make_a_wide_picture_square(resize, corner, middle):
    wide = Image.new("L", (64, 16), 255)
    pixels = decode_pixels(file_of(wide), spec(channels=1), resize, "")
    assert (pixels[0, 0, 0], pixels[4, 4, 0]) == (corner, middle)


def test_a_large_jpeg_is_near_what_full_decoding_gives():
    large = GRADIENT.resize((1600, 1200), Image.Resampling.BICUBIC)
    fast = decode_pixels(file_of(large, "JPEG", quality=95), spec(32, 32), "stretch", "")
    full = np.asarray(large.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(fast - full).mean() < 3


def test_a_damaged_image_names_the_input():
    whole = file_of(GRADIENT)
    with pytest.raises(InvalidInput, match=r"inputs\.image at file 1: expected a whole image"):
        decode_pixels(whole[: len(whole) // 2], spec(), "stretch", "file 1")


@given(
    arrays.arrays(
        st.sampled_from(["<f4", ">f8", "u1", "?", "<f2", "S3", "U2"]),
        arrays.array_shapes(min_dims=0, max_dims=3, max_side=3),
    ),
    st.booleans(),
)
def test_npy_files_are_read_as_numpy_reads_them(array, fortran):
    array = np.asfortranarray(array) if fortran else array
    read = read_npy(npy(array), "x")
    if array.dtype.kind in "SU":
        wanted = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        array = wanted.astype(object)
    np.testing.assert_array_equal(read, array)
    assert read.dtype.byteorder in "=|<"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as a .npy file"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': 5}    \n", "cannot be read as a .npy file"),
        (
            npy(np.zeros((2, 3)))[:-8],
            "declares float64 [2, 3], which take 48 bytes, and holds 40 bytes",
        ),
        (npy(np.zeros(1)).replace(b"(1,), }", b"(1,    "), "cannot be read as a .npy file"),
        (
            npy(np.zeros(1)).replace(b"(1,), }" + b" " * 12, b"(1" + b"0" * 12 + b",), }"),
            "declares float64 [1000000000000], which take 8000000000000 bytes, and holds 8 bytes",
        ),
        (npy(np.array([{}], object)), "Python objects, which are not read"),
    ],
)
def test_what_is_no_npy_file_is_refused_before_it_is_allocated(data, message):
    with pytest.raises(MalformedRequest) as raised:
        read_npy(data, "the body")
    assert message in str(raised.value)


def test_outputs_come_back_from_npy_and_npz():
    outputs = {"file": np.float32([[1, 2]]), "text": np.array([b"a", b"bc"], object)}
    with np.load(io.BytesIO(encode_npz(outputs))) as loaded:
        np.testing.assert_array_equal(loaded["file"], outputs["file"])
        assert loaded["text"].tolist() == [b"a", b"bc"]
    np.testing.assert_array_equal(np.load(io.BytesIO(encode_npy({"x": outputs["file"]}))), [[1, 2]])
    with pytest.raises(NotAcceptable):
        encode_npy(outputs)


def test_only_the_best_labels_are_kept():
    outputs = {
        "kind": np.zeros((2, 9)),
        "kind_classes": np.full((2, 5), b"x", object),
        "kind_scores": np.zeros((2, 5)),
    }
    kept = keep_best(outputs, 3)
    assert {name: array.shape for name, array in kept.items()} == {
        "kind": (2, 9),
        "kind_classes": (2, 3),
        "kind_scores": (2, 3),
    }
    for count, given_ in [(6, outputs), (1, {"kind": outputs["kind"]})]:
        with pytest.raises(MalformedRequest, match="top_k"):
            keep_best(given_, count)


@pytest.fixture
def post(gateway):
    def send(path, data=None, kind=None, accept=None, **more):
        return requests.post(
            f"{gateway.url}/v1/models/{path}",
            data=data,
            timeout=30,
            headers={"Content-Type": kind, "Accept": accept},
            **more,
        )

    return send


ONES = npy(np.float32([1, 2]))


def test_npy_in_and_npy_out(post):
    reply = post("affine:predict", ONES, NPY, NPY)
    assert reply.headers["Content-Type"] == NPY
    np.testing.assert_array_equal(np.load(io.BytesIO(reply.content)), np.float32([3.5, 4]))
    assert post("affine:predict", ONES, NPY).json() == {"predictions": [3.5, 4.0]}
    assert post("affine/versions/1:predict", ONES, NPY).json() == {"predictions": [2.5, 3.0]}
    numpys_default = npy(np.array([1.0, 2.0]))
    assert post("affine:predict", numpys_default, NPY).json() == {"predictions": [3.5, 4.0]}


def test_npz_in_and_npz_out(post):
    body = npz(image=np.ones((1, 2, 2, 1), np.uint8), meta=np.float32([[1, 2, 3]]))
    reply = post("pair:predict", body, NPZ, NPZ)
    with np.load(io.BytesIO(reply.content)) as outputs:
        np.testing.assert_array_equal(outputs["score"], [[10]])
        np.testing.assert_array_equal(outputs["ranks"], [[4, 1, 2]])
    assert post("pair:predict", body, NPZ, NPY).status_code == 406


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(100 * 2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "message"),
    [
        ("affine:predict", b"x", NPY, 400, "The body cannot be read as a .npy file"),
        ("affine:predict", b"x", NPZ, 400, "The body cannot be read as a .npz file"),
        (
            "affine:predict",
            npz(x=np.zeros(1))[1:],
            NPZ,
            400,
            "The body cannot be read as a .npz file",
        ),
        ("affine:predict", npz(x=np.zeros(1)).replace(b"NUMPY", b"NUMBY"), NPZ, 400, "Bad CRC-32"),
        ("affine:predict", bomb(), NPZ, 413, "larger than the limit"),
        ("affine:predict", npy(np.zeros(2, bool)), NPY, 400, "expected float32 [N], got bool"),
        ("pair:predict", ONES, NPY, 400, "send them as application/x-npz"),
        ("pair:predict", npz(image=np.zeros((1, 2, 2, 1))), NPZ, 400, 'missing input "meta"'),
        ("affine:predict?top_k=2", ONES, NPY, 400, "this one gives y"),
        ("affine:predict?top_k=x", ONES, NPY, 400, "expected a number"),
        ("affine:predict?resize=bend", ONES, NPY, 400, 'resize="bend" is not known'),
        ("affine:predict?topk=1", ONES, NPY, 400, 'did you mean "top_k"'),
    ],
)
def test_files_that_do_not_fit(post, path, body, kind, status, message):
    reply = post(path, body, kind)
    assert (reply.status_code, message in reply.json()["error"]) == (status, True), reply.text


def test_an_image_for_a_model_whose_graph_decodes_none(post):
    """`pair` takes pixels [N, 2, 2, 1] and three numbers beside them."""
    white = file_of(Image.new("RGB", (40, 20), (255, 255, 255)))
    one = post("pair:predict", {"meta": "[1, 2, 3]"}, files={"image": white})
    assert one.json() == {"predictions": [{"score": [1026.0], "ranks": [1020.0, 1.0, 2.0]}]}
    padded = post("pair:predict?resize=fit", {"meta": "[0, 0, 0]"}, files={"image": white})
    assert padded.json()["predictions"][0]["ranks"][0] <= 1020
    two = post(
        "pair:predict",
        {"meta": ["[0, 0, 0]", "[1, 1, 1]"]},
        files=[("image", white), ("image", white)],
    )
    assert [row["score"] for row in two.json()["predictions"]] == [[1020.0], [1023.0]]
    alone = post("pair:predict", white, "image/png")
    assert "send multipart/form-data with one field for each" in alone.json()["error"]
