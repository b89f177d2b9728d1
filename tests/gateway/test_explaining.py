"""Why a model says what it says: `?explain=` beside a prediction, and `explain` asked by itself."""

import base64
import io
import json
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from PIL import Image

from service.gateway.classes import index_of
from service.gateway.decode.magic import NPY, NPZ
from service.gateway.encode.overlay import LEAST_SIDE, MOST_SIDE, laid_over
from service.gateway.errors import MalformedRequest
from sluice.wire.protos import inference_pb2, inference_pb2_grpc, serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import encode_tensor
from tests.gateway.numpy_files import npy

PNG = "image/png"


def picture(third: int, side: int = 6) -> bytes:
    """A PNG file whose third from the left is white, the others dark."""
    pixels = np.full((side, side), 51, np.uint8)
    pixels[:, third * side // 3 : (third + 1) * side // 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)), np.float32)[None, :, :, None]


def heat(third: int, of: int) -> np.ndarray:
    """The map of a third in the picture of another."""
    expected = np.zeros((6, 6), np.float32)
    expected[:, 2 * third : 2 * third + 2] = 1 if third == of else 0.2
    return expected


@pytest.fixture(scope="module")
def served(launch_grpc_gateway, own_modelserver):
    return launch_grpc_gateway(own_modelserver.address)


@pytest.fixture(scope="module")
def url(served) -> str:
    return served[0].url


@pytest.fixture
def post(url: str):
    def send(path: str, body=None, kind="", accept="*/*", **more) -> requests.Response:
        headers = {"Accept": accept} | ({"Content-Type": kind} if kind else {})
        return requests.post(
            f"{url}/v1/models/{path}", data=body, headers=headers, timeout=30, **more
        )

    return send


def check(reply: requests.Response, third: int, of: int) -> None:
    """Beside one row's prediction stands the map of a third in the picture of another."""
    assert reply.status_code == 200, reply.text
    [why] = reply.json()["explanations"]
    np.testing.assert_allclose(why["heatmap"], heat(third, of))
    assert why["class"] == third
    assert len(reply.json()["predictions"]) == 1


@pytest.mark.parametrize(
    ("asked", "third"), [("true", 1), ("-1", 1), ("2", 2), ("0", 0), ("right", 2), ("middle", 1)]
)
def test_a_picture_is_explained_by_its_best_class_or_the_one_that_is_asked(post, asked, third):
    file = picture(1)
    if asked == "right":  # the third best is not among the labels that the model answers
        assert post(f"why:predict?explain={asked}", file).status_code == 400
        file = picture(2)
        return check(post(f"why:predict?explain={asked}", file), 2, of=2)
    check(post(f"why:predict?explain={asked}", file), third, of=1)
    check(post(f"why:predict?explain={asked}", files={"image": file}), third, of=1)
    instances = {
        "signature_name": "encoded",
        "instances": [{"b64": base64.b64encode(file).decode()}],
    }
    check(post(f"why:predict?explain={asked}", json.dumps(instances)), third, of=1)
    return None


def test_pixels_are_explained_too(post):
    pixels = pixels_of(picture(0))
    check(post("why:predict?explain=true", json.dumps({"instances": pixels.tolist()})), 0, of=0)
    check(post("why:predict?explain=1", npy(pixels), NPY), 1, of=0)


def test_what_is_answered_is_what_is_answered_without(post):
    file = picture(2)
    explained = post("why:predict?explain=true&top_k=1", file).json()
    assert explained["predictions"] == post("why:predict?top_k=1", file).json()["predictions"]
    assert post("why:predict?explain=false", file).json() == post("why:predict", file).json()
    score = explained["predictions"][0]["label_scores"][0]
    assert explained["explanations"][0]["score"] == pytest.approx(score)


def test_columns_and_several_rows(post):
    rows = np.concatenate([pixels_of(picture(third)) for third in (2, 0)])
    reply = post("why:predict?explain=true", json.dumps({"inputs": rows.tolist()})).json()
    assert len(reply["outputs"]) == 2
    why = reply["explanations"]
    np.testing.assert_allclose(why["heatmap"], [heat(2, 2), heat(0, 0)])
    assert why["class"] == [2, 0]
    files = [("image", picture(third)) for third in (2, 0)]
    answered = post("why:predict?explain=1", files=files).json()["explanations"]
    assert [each["class"] for each in answered] == [1, 1]


def test_arrays_come_as_npz_and_not_as_npy(post):
    reply = post("why:predict?explain=0", picture(1), accept=NPZ)
    with np.load(io.BytesIO(reply.content)) as arrays:
        assert arrays["label_classes"][0, 0] == b"middle"
        np.testing.assert_allclose(arrays["explain_heatmap"], [heat(0, 1)])
    assert post("why:predict?explain=0", picture(1), accept=NPY).status_code == 406


@pytest.mark.parametrize(("side", "seen"), [(6, LEAST_SIDE), (600, 600), (1800, MOST_SIDE)])
def test_a_browser_is_given_the_picture_under_its_heat(post, side, seen):
    reply = post("why:predict?explain=true", picture(1, side), accept="image/png")
    assert reply.headers["Content-Type"] == "image/png"
    shown = Image.open(io.BytesIO(reply.content))
    assert shown.size == (seen, seen)
    cold, hot = shown.getpixel((seen // 6, seen // 2)), shown.getpixel((seen // 2, seen // 2))
    assert cold == (51, 51, 51)
    assert hot[0] > 250
    assert max(hot[1:]) < 100


def test_a_png_shows_one_row(post):
    files = [("image", picture(third)) for third in (2, 0)]
    reply = post("why:predict?explain=true", files=files, accept="image/png")
    assert reply.status_code == 406
    assert "the request has 2 rows" in reply.json()["error"]


def test_heat_of_a_strange_model_is_drawn_as_far_as_it_goes():
    heatmap = np.float32([[np.nan, -1], [np.inf, 0.5]])
    shown = laid_over(Image.new("RGB", (2, 2), "white"), heatmap)
    assert [shown.getpixel((x, y)) for y in (0, 1) for x in (0, 1)][:3] == [
        (255, 255, 255),
        (255, 255, 255),
        (255, 77, 77),
    ]


PAIR = {
    "above": pixels_of(picture(0)).tolist(),
    "below": pixels_of(picture(1)).tolist(),
    "size": [[7.0]],
}


@pytest.mark.parametrize(
    ("asked", "first", "second"), [("true", 0, 1), ("first:2", 2, 1), ("second:0", 0, 0)]
)
def test_each_head_and_each_input_has_a_map(post, asked, first, second):
    why = post(f"whys:predict?explain={asked}", json.dumps({"inputs": PAIR})).json()["explanations"]
    assert (why["first_class"], why["second_class"]) == ([first], [second])
    np.testing.assert_allclose(why["first_heatmap_above"], [heat(first, 0)])
    np.testing.assert_allclose(why["first_heatmap_below"], [heat(first, 1)])
    np.testing.assert_allclose(why["second_heatmap_below"], [heat(second, 1)])


def test_a_png_shows_inputs_beside_each_other_and_heads_below(post):
    parts = {"above": picture(0), "below": picture(1), "size": (None, "[7]")}
    reply = post("whys:predict?explain=true", files=parts, accept="image/png")
    shown = Image.open(io.BytesIO(reply.content))
    assert shown.size == (2 * LEAST_SIDE, 2 * LEAST_SIDE)
    # Of both heads' classes there is heat in the picture of that class alone that is as bright.
    reds = [
        shown.getpixel((40 + 256 * x + 85 * y, 128 + 256 * y))[2] for y in (0, 1) for x in (0, 1)
    ]
    assert reds[0] < 100 and reds[3] < 100


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("why:predict?explain=3", "inputs.class: expected a class, 0 to 2, or -1 for the best one"),
        ("why:predict?explain=-2", "inputs.class: expected a class, 0 to 2, or -1"),
        ("why:predict?explain=cat", "no class is known here by this label; give true, its index, "),
        ("why:predict?explain=", "no class is known here by this label"),
        ("why:predict?explain=1&signature_name=explain", "?explain= goes with the signatures"),
        ("why:predict?explian=1", 'did you mean "explain"?'),
        ("whys:predict?explain=1", "say HEAD:CLASS, the head one of first, second"),
        ("whys:predict?explain=third:1", "say HEAD:CLASS, the head one of first, second"),
        ("whys:predict?explain=first:3", "inputs.first_class: expected a class, 0 to 2"),
        ("echo:predict?explain=true", "publish it again (sluice train, sluice publish)"),
    ],
)
def test_what_cannot_be_explained_is_said(post, path, message):
    if path.startswith("echo"):
        reply = post("echo:predict?explain=true", json.dumps({"instances": [[[1]]]}))
    elif path.startswith("whys"):
        reply = post(path, json.dumps({"inputs": PAIR}))
    else:
        reply = post(path, picture(1))
    assert reply.status_code == 400
    assert message in reply.json()["error"]


def test_labels_are_those_of_the_version_where_the_gateway_may_read_them(
    launch_gateway, own_modelserver, tmp_path: Path
):
    version = tmp_path / "why" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    (version / "metrics.json").write_text(
        json.dumps({"labels": {"label": ["left", "middle", "right"]}})
    )
    url = launch_gateway(own_modelserver.address, model_repository=str(tmp_path)).url
    address = f"{url}/v1/models/why:predict?explain=right"
    check(requests.post(address, picture(1), timeout=30), 2, of=1)


def test_a_label_is_one_of_the_best_and_a_number_is_an_index():
    outputs = {
        "a": np.float32([[0.1, 0.7, 0.2]]),
        "a_classes": np.array([[b"7", b"x"]], object),
    }
    assert [index_of(name, "a", outputs, {}) for name in ("7", "x", "-1")] == [7, 2, -1]
    with pytest.raises(MalformedRequest, match="or a label: 7, x"):
        index_of("y", "a", outputs, {})
    with pytest.raises(MalformedRequest, match=r"give true, its index$"):
        index_of("y", "b", outputs, {})


def test_explain_by_itself_takes_the_best_class_where_none_is_asked(post):
    pixels = pixels_of(picture(1)).tolist()
    for document, third in (
        ({"instances": pixels}, 1),
        ({"instances": [{"image": pixels[0]}]}, 1),
        ({"instances": [{"image": pixels[0], "class": 2}]}, 2),
        ({"inputs": {"image": pixels, "class": [0]}}, 0),
        ({"inputs": pixels}, 1),
    ):
        reply = post("why:predict", json.dumps({"signature_name": "explain", **document})).json()
        [row] = reply.get("predictions") or [{n: v[0] for n, v in reply["outputs"].items()}]
        np.testing.assert_allclose(row["heatmap"], heat(third, 1))
    for body, kind in ((npy(np.float32(pixels)), NPY), (picture(1), PNG)):
        [row] = post("why:predict?signature_name=explain", body, kind).json()["predictions"]
        assert row["class"] == 1
    form = {"image": picture(1), "class": (None, "2")}
    [row] = post("why:predict?signature_name=explain_encoded", files=form).json()["predictions"]
    assert row["class"] == 2
    refused = post("why:predict?signature_name=explain_encoded", files=form | {"image": b"no"})
    assert refused.status_code == 400


def test_rows_agree_on_whether_they_name_a_class(post):
    row = {"image": pixels_of(picture(1))[0].tolist()}
    rows = {"signature_name": "explain", "instances": [row, row | {"class": 1}]}
    reply = post("why:predict", json.dumps(rows))
    assert reply.status_code == 400
    assert (
        "/instances/1: expected the keys image alone, as in the first row" in reply.json()["error"]
    )


def test_the_open_inference_protocol_and_grpc_take_it_as_a_signature(url, served):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 6, 6, 1]}
    data = pixels_of(picture(1))
    document = {
        "parameters": {"signature_name": "explain"},
        "inputs": [tensor | {"data": data.ravel().tolist()}],
    }
    reply = requests.post(f"{url}/v2/models/why/infer", json=document, timeout=30).json()
    outputs = {each["name"]: each["data"] for each in reply["outputs"]}
    assert outputs["class"] == [1]
    np.testing.assert_allclose(np.reshape(outputs["heatmap"], (6, 6)), heat(1, 1))
    with grpc.insecure_channel(served[1]) as channel:
        oip = inference_pb2.ModelInferRequest(model_name="why", raw_input_contents=[data.tobytes()])
        oip.inputs.add(name="image", datatype="FP32", shape=[1, 6, 6, 1])
        oip.parameters["signature_name"].string_param = "explain"
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert len(stub.ModelInfer(oip, timeout=30).outputs) == 3
        tfs = PredictRequest()
        tfs.model_spec.name, tfs.model_spec.signature_name = "why", "explain"
        tfs.inputs["image"].CopyFrom(encode_tensor(data))
        predict = serving_pb2_grpc.PredictionServiceStub(channel).Predict
        assert list(predict(tfs, timeout=30).outputs["class"].int_val or [1]) == [1]
        tfs.inputs["class"].CopyFrom(encode_tensor(np.int32([3])))
        with pytest.raises(grpc.RpcError, match=r"inputs\.class: expected a class, 0 to 2"):
            predict(tfs, timeout=30)


def test_it_counts_as_one_request_of_the_signature_that_explains(url, post):
    def counted() -> float:
        lines = requests.get(f"{url}/metrics", timeout=30).text.splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("sluice_requests_total") and 'signature="explain_encoded"' in line
        )

    before = counted()
    assert post("why:predict?explain=true", picture(0)).ok
    assert counted() == before + 1


def test_the_gateway_describes_it(launch_gateway, own_modelserver):
    url = launch_gateway(own_modelserver.address, models="why,affine").url
    paths = requests.get(f"{url}/openapi.json", timeout=30).json()["paths"]
    asked = paths["/v1/models/why:predict"]["post"]
    names = [each["name"] for each in asked["parameters"]]
    assert names == ["X-Sluice-Version", "top_k", "explain"]
    answers = asked["responses"]["200"]["content"]
    assert "image/png" in answers
    rows = [
        rows["properties"]["explanations"]["items"]
        for option in answers["application/json"]["schema"]["anyOf"]
        if "explanations" in (rows := option["oneOf"][0])["properties"]
    ]
    assert [each["required"] for each in rows] == [["class", "heatmap", "score"]] * 2
    bodies = asked["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    alone = next(
        body["oneOf"][0]["properties"]["instances"]["items"]
        for body in bodies
        if body["oneOf"][0]["properties"]["signature_name"]["const"] == "explain"
    )
    named, _ = alone["anyOf"]  # or the picture alone, without its name
    assert (sorted(named["properties"]), named["required"]) == (["class", "image"], ["image"])
    plain = paths["/v1/models/affine:predict"]["post"]
    assert [each["name"] for each in plain["parameters"]] == ["X-Sluice-Version"]
    assert "image/png" not in plain["responses"]["200"]["content"]
