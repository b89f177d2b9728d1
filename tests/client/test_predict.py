"""One suite over both protocols, for threads and for asyncio."""

import io

import numpy as np
import pytest
from PIL import Image

from sluice import (
    BadRequest,
    Client,
    Guess,
    NotFound,
    NotSupported,
    Prediction,
    VersionStatus,
)
from tests.gateway.rollouts import eventually

DTYPES = {
    "i32": np.array([1, 2], "i4"),
    "i64": np.array([-(2**60), 5], "i8"),
    "u8": np.array([0, 254], "u1"),
    "f64": np.array([1.5, np.inf], "f8"),
    "flag": np.array([True, False]),
    "text": np.array([b"abc", b"\x00\xff"], object),
}


def test_several_inputs_and_outputs(client):
    prediction = client.predict(
        "pair", image=np.ones((2, 2, 2, 1), "f4"), meta=np.array([[1, 2, 3], [4, 5, 6]], "f4")
    )
    assert prediction["score"].tolist() == [[10], [19]]
    assert prediction["ranks"].tolist() == [[4, 1, 2], [4, 4, 5]]
    assert list(prediction) == ["ranks", "score"]
    assert (prediction.model, prediction.version, prediction.signature) == (
        "pair",
        1,
        "serving_default",
    )
    assert repr(prediction) == (
        "<Prediction of pair version 1: ranks: float32 [2,3], score: float32 [2,1]>"
    )


def test_every_dtype_comes_back_as_it_is(client):
    prediction = client.predict("dtypes", DTYPES)
    assert {name: array.dtype for name, array in prediction.items()} == {
        "raw_bytes": object,
        **{name: array.dtype for name, array in DTYPES.items()},
    }
    assert prediction["i32"].tolist() == [2, 3]
    assert prediction["i64"].tolist() == [-(2**60) + 1, 6]
    assert prediction["u8"].tolist() == [1, 255]
    assert prediction["f64"].tolist() == [0.5, np.inf]
    assert prediction["flag"].tolist() == [False, True]
    assert prediction["raw_bytes"].tolist() == [b"abc", b"\x00\xff"]


def test_values_take_the_models_dtypes(client):
    prediction = client.predict(
        "dtypes",
        i32=[1.0, 2.0],
        i64=np.array([1, 2], ">i2"),
        u8=np.array([0, 254]),
        f64=[1, 2],
        flag=[True, False],
        text=np.array(["ä", "b"]),
    )
    assert prediction["u8"].dtype == np.uint8
    assert prediction["raw_bytes"].tolist() == ["ä".encode(), b"b"]
    assert client.predict("affine", np.array([1, 2], np.uint8))["y"].tolist() == [3.5, 4.0]


def test_values_that_would_change_are_left_for_the_server_to_refuse(client):
    for wrong in ([0, 256], [-1, 0], [0.5, 1]):
        with pytest.raises(BadRequest):
            client.predict("dtypes", DTYPES | {"u8": np.array(wrong)})


def test_versions_labels_signatures_and_outputs(client):
    assert client.predict("affine", [1.0], version=1)["y"] == 2.5
    canary = client.predict("affine", [1.0], label="canary")
    assert (canary["y"], canary.version) == (3.5, 2)
    total = client.predict("echo", np.ones((1, 2, 3)), signature="total")
    assert (total["total"], total.signature) == (6, "total")
    assert list(
        client.predict("pair", image=np.ones((1, 2, 2, 1)), meta=[[1, 2, 3]], outputs=["score"])
    ) == ["score"]
    with pytest.raises(ValueError, match="both given"):
        client.predict("affine", [1.0], version=1, label="canary")


def test_an_output_without_rows(client):
    assert client.predict("unbatched", [[1, 3]])["mean"].shape == ()


def test_image_files_are_a_batch_in_any_form(client, samples):
    one = client.predict("digits", image=samples[3])
    assert one.signature == "encoded"
    assert (len(one.labels), len(one.ranked("label")[0])) == (1, 5)
    forms = [samples[3], str(samples[3]), samples[3].read_bytes()]
    many = client.predict("digits", forms)
    assert many["label"].shape == (3, 10)
    for row in many["label"]:
        assert row == pytest.approx(one["label"][0], rel=1e-4)
    right = sum(
        label == str(digit)
        for digit, label in enumerate(client.predict("digits", image=samples).labels)
    )
    assert right >= 8  # a few epochs only


def test_open_files_and_pillows_pictures_are_files_too(client, samples):
    with samples[3].open("rb") as file, Image.open(samples[3]) as image:
        forms = [
            samples[3],
            file,
            image,
            io.BytesIO(samples[3].read_bytes()),
            image.convert("CMYK"),
        ]
        many = client.predict("digits", forms)
        assert client.predict("digits", image=image)["label"].shape == (1, 10)
    for row in many["label"]:
        assert row == pytest.approx(many["label"][0], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (1, 8, 8, 1)])
def test_one_picture_as_an_array_is_a_batch_of_one(client, shape):
    pixels = np.arange(64, dtype=np.uint8).reshape(shape)
    assert client.predict("digits", pixels)["label"].shape == (1, 10)


def test_several_grey_pictures_need_no_axis_for_their_channel(client):
    assert client.predict("digits", np.zeros((3, 8, 8)))["label"].shape == (3, 10)


def test_text_goes_to_an_input_that_takes_text(client):
    for text in (["abc", "é"], ("abc", "é"), np.array(["abc", "é"]), [b"abc", "é"]):
        prediction = client.predict("dtypes", DTYPES | {"text": text})
        assert prediction["raw_bytes"].tolist() == [b"abc", "é".encode()]
    one = {name: array[:1] for name, array in DTYPES.items()}
    prediction = client.predict("dtypes", one | {"text": "three.png"})
    assert prediction["raw_bytes"].tolist() == [b"three.png"]


def test_the_gateway_decodes_pictures_for_a_signature_that_takes_pixels(client, scheme, tmp_path):
    path = tmp_path / "white.png"
    Image.new("RGB", (40, 20), (255, 255, 255)).save(path)
    rows = {"image": [path, path], "meta": [[1, 2, 3], [0, 0, 0]]}
    if scheme == "grpc":
        with pytest.raises(NotSupported, match='"image" takes pixels, and gRPC decodes no files'):
            client.predict("pair", rows)
        return
    prediction = client.predict("pair", rows)
    assert prediction["score"].tolist() == [[1026], [1020]]
    assert list(client.predict("pair", rows, outputs=["ranks"])) == ["ranks"]


def test_every_kind_of_client_gets_the_same_outputs(client, urls, samples):
    with Client(urls["http"]) as other:
        expected = other.predict("digits", samples)
    prediction = client.predict("digits", samples)
    assert list(prediction) == list(expected)
    for name, array in expected.items():
        assert np.array_equal(prediction[name], array), name
    assert prediction.top[3].score == prediction["label_scores"][3, 0]


def test_no_labels_is_said(client):
    prediction = client.predict("affine", [1.0])
    assert prediction.heads == []
    for ask in (lambda: prediction.labels, lambda: prediction.ranked("y")):
        with pytest.raises(LookupError, match="outputs are y"):
            ask()


def test_one_of_several_heads_is_named():
    labels = {
        f"{head}{suffix}": np.array([[value]], object)
        for head in ("color", "kind")
        for suffix, value in (("_classes", b"red"), ("_scores", 1.0))
    }
    prediction = Prediction(labels, "garments", 1, "encoded")
    assert prediction.ranked("color") == [[Guess("red", 1.0)]]
    with pytest.raises(LookupError, match="name one of color, kind"):
        prediction.top  # noqa: B018


@pytest.mark.parametrize(
    ("model", "inputs", "options", "message"),
    [
        ("affine", {"X": [1.0]}, {}, "X"),
        ("affine", {}, {}, "x"),
        ("affine", {"x": [1.0]}, {"signature": "predict"}, "predict.*serving_default"),
        ("affine", {"x": [1.0]}, {"label": "nightly"}, "nightly"),
        ("affine", {"x": [1.0]}, {"outputs": ["z"]}, "z"),
        ("affine", {"x": b"a file"}, {}, "takes numbers .*float32.* files or text"),
        ("affine", {"x": [None]}, {}, '"x" holds None, a NoneType; give numbers'),
        ("affine", {"x": {1.0}}, {}, '"x" holds {1.0}, a set; give numbers'),
        ("affine", {"x": [[1], [2, 3]]}, {}, '"x" was given a list that is no array: .*inhomog'),
        ("affine", {"x": np.array(["2026-01-01"], "M8[D]")}, {}, "given dates or times"),
        ("affine", {"x": "three.png"}, {}, "takes numbers .*float32.* files or text"),
        ("digits", io.StringIO("text"), {}, '"image" was given a file that reads as str; open it'),
        ("digits", Image.new("F", (8, 8)), {}, "a picture of the mode F, .*convert"),
        ("pair", b"one", {}, "image, meta; give each by its name"),
        ("digits", b"no image", {}, "image"),
    ],
)
def test_what_does_not_fit_is_a_bad_request(client, model, inputs, options, message):
    with pytest.raises(BadRequest, match=message):
        client.predict(model, inputs, **options)


def test_what_is_not_there(client, tmp_path):
    with pytest.raises(NotFound, match="nobody"):
        client.predict("nobody", [1.0])
    with pytest.raises(NotFound) as refusal:
        client.metadata("affine", version=9)
    assert refusal.value.code in ("404", "NOT_FOUND")
    with pytest.raises(FileNotFoundError) as missing:
        client.predict("digits", image=tmp_path / "none.png")
    assert missing.value.filename == str(tmp_path / "none.png")


def test_metadata(client):
    metadata = client.metadata("digits")
    assert (metadata.name, metadata.version) == ("digits", 1)
    assert {"serving_default", "encoded", "classify"} <= set(metadata.signatures)
    assert str(metadata.signatures["serving_default"].inputs["image"]) == "float32 [N,8,8,1]"
    assert str(metadata.signatures["encoded"].inputs["image"]) == "string [N]"
    assert client.metadata("affine", label="stable").version == 1


def test_status_and_readiness(client, scheme):
    assert client.status("affine") == [
        VersionStatus(2, "AVAILABLE", ""),
        VersionStatus(1, "AVAILABLE", ""),
    ]
    assert eventually(client.ready)
    assert client.ready("affine")
    assert not client.ready("nobody")
    if scheme == "grpc":
        with pytest.raises(NotSupported, match="cannot list"):
            client.models()
    else:
        assert {"affine", "digits"} <= set(client.models())
