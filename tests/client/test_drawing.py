"""What a prediction looks like where it is printed, and in a notebook."""

import base64
import io
import re
from html.parser import HTMLParser

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sluice import Client, Prediction
from sluice.client._png import data_url
from sluice.client.drawing import MOST_EMBEDDED, SHOWN_ROWS

VOID = {"img", "br"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """What HTML shows: `images`, (alt, pixels); `text`; `tags`. Raises where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.images, self.text, self.tags = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            url, what = dict(attrs)["src"], dict(attrs)["alt"]
            self.images.append((what, opened(url)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += f" {data}"

    def styles(self, what):
        return [attrs["style"] for _, attrs in self.tags if what in attrs.get("style", "")]


def opened(url):
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", url).groups()
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    assert image.format.lower() == kind
    return image


def page_of(outputs, inputs=None, model="m"):
    return Page(Prediction(outputs, model, 1, "encoded", inputs)._repr_html_())


def labelled(rows=1, label=b"cat", score=0.9):
    return {
        "label_classes": np.array([[label, b"dog"]] * rows, object),
        "label_scores": np.array([[score, 1 - score]] * rows, np.float32),
        "label": np.array([[1 - score, score]] * rows, np.float32),
    }


def file_of(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def files(*contents):
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_what_a_server_answers_is_drawn_with_the_picture_that_was_asked(urls, samples, kind):
    with Client(urls[kind]) as client:
        prediction = client.predict("digits", image=samples[3])
    page = Page(prediction._repr_html_())
    [(name, picture)] = page.images
    assert name == "image"
    assert picture.tobytes() == opened(data_url(samples[3].read_bytes(), "png")).tobytes()
    assert "digits" in page.text and "version 1" in page.text
    best = prediction.top[0]
    assert re.search(rf"\b{best.label} +{best.score:.4f}", page.text)
    assert str(prediction).splitlines()[1].split() == ["0", "label", "3", f"{best.score:.4f}"]


def test_pixels_that_were_asked_are_drawn_too(urls):
    pixels = np.linspace(0, 255, 64).reshape(1, 8, 8, 1)
    with Client(urls["grpc"]) as client:
        page = Page(client.predict("digits", pixels)._repr_html_())
    [(_, picture)] = page.images
    assert np.array_equal(np.asarray(picture), pixels[0, ..., 0].round())


def test_a_bar_is_as_long_as_its_score():
    page = page_of(labelled(score=0.75))
    assert [re.match("width: ([^;]+)", style)[1] for style in page.styles("#4c8bf5")] == [
        "75.0%",
        "25.0%",
    ]
    assert page_of(labelled(score=np.nan)).styles("#4c8bf5")[0].startswith("width: 0.0%")


def test_grey_of_0_to_1_is_a_picture_where_its_name_says_so():
    asked = {"image": np.zeros((1, 8, 8, 1), np.uint8)}
    values = np.random.default_rng(0).random((1, 8, 8, 1)).astype(np.float32)
    assert page_of({"mask": values}, asked).images[-1][0] == "the mask"
    assert page_of({"picture": values}, asked).images[-1][0] == "a picture that the model made"


def test_what_no_float32_holds_is_as_bright_as_can_be():
    values = np.array([[[[1e300], [0.0], [-1e300]]]])
    [(_, drawn)] = page_of({"picture": values}).images
    assert np.asarray(drawn).tolist() == [[255, 0, 0]]


def test_a_picture_of_minus_1_to_1_has_its_greys():
    values = np.float32([[[[-1.0], [0.0], [1.0]]]])
    [(_, drawn)] = page_of({"picture": values}).images
    assert np.asarray(drawn).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_picture_that_the_model_made_has_its_pixels(channels, scale):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, channels), np.uint8)
    page = page_of({"picture": pixels / np.float32(scale)})
    drawn = [np.asarray(image).reshape(5, 7, channels) for _, image in page.images]
    assert np.array_equal(np.stack(drawn), pixels)


def test_a_mask_lies_over_the_picture_that_was_asked():
    scores = np.zeros((1, 4, 4, 3), np.float32)
    scores[..., 0] = 1
    scores[0, 1, 2] = [0.1, 0.2, 0.7]
    asked = file_of(np.full((9, 9, 3), 200, np.uint8), "JPEG")
    page = page_of({"mask": scores}, {"image": files(asked)})
    assert [what for what, _ in page.images] == ["image", "image", "the mask"]
    covered = np.asarray(page.images[2][1])[..., 3]
    assert covered[1, 2] > 0
    assert np.count_nonzero(covered) == 1
    assert len(page.styles("position: absolute")) == 1


def test_scores_before_their_softmax_are_a_mask_and_no_picture():
    logits = np.array([[[[3.0, -2.0, 0.5], [-4.0, 0.1, 2.0]]]], np.float32)
    page = page_of({"mask": logits}, {"image": np.zeros((1, 8, 8, 3), np.uint8)})
    what, drawn = page.images[-1]
    assert what == "the mask"
    assert (np.asarray(drawn)[0, :, 3] > 0).tolist() == [False, True]
    assert page_of({"mask": logits}).images == []


@pytest.mark.parametrize(
    "mask",
    [np.array([[[[0.2], [0.8]]]], np.float32), np.array([[[0, 5]]], np.int32)],
    ids=["one class", "numbers of classes"],
)
def test_other_masks(mask):
    page = page_of({"mask": mask}, {"image": np.zeros((1, 8, 8, 3), np.uint8)})
    assert (np.asarray(page.images[-1][1])[0, :, 3] > 0).tolist() == [False, True]


def test_heat_lies_over_the_picture_of_its_input():
    heat = np.array([[[0, 0.5], [1, 0]]], np.float32)
    sizes = {"left": 3, "right": 5}
    inputs = {name: np.full((1, side, side, 1), 9, np.uint8) for name, side in sizes.items()}
    outputs = {"sum_heatmap_right": heat, "class": np.int32([7]), "score": np.float32([0.25])}
    page = page_of(outputs, inputs)
    (_, under), (what, over) = page.images[-2:]
    assert (under.width, what) == (5, "where the model looked")
    pixels = np.asarray(over)
    assert pixels[1, 0, 3] > pixels[0, 1, 3] > pixels[0, 0, 3] == 0
    assert "class 7 score 0.25" in " ".join(page.text.split())


def test_without_a_picture_heat_stands_alone():
    heatmap = np.random.default_rng(0).random((1, 7, 7), np.float32)
    assert [what for what, _ in page_of({"heatmap": heatmap}).images] == ["where the model looked"]


def test_an_array_is_a_small_table_of_rounded_numbers():
    page = page_of({"y": np.full((1, 100, 100), 1 / 3, np.float32), "mean": np.float32(0.1)})
    assert page.text.count("0.333333") == 60
    assert "[100,100] …" in page.text
    assert "mean 0.1" in page.text


def test_what_a_client_or_a_model_named_is_text_and_no_html():
    label = HOSTILE.encode()
    page = page_of(
        labelled(label=label) | {HOSTILE: np.array([[label, label]], object)},
        {HOSTILE: np.zeros((1, 4, 4, 1), np.uint8)},
        model=HOSTILE,
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE) == 6
    assert page.images[0][0] == HOSTILE


def test_a_long_label_is_cut():
    assert len(page_of(labelled(label=b"long" * 10_000)).text) < 1000


def test_a_large_answer_is_a_small_page():
    noise = np.random.default_rng(0).integers(0, 256, (50, 600, 800, 3), np.uint8)
    page = Prediction({"picture": noise} | labelled(50), "m", 1, "encoded", {"image": noise})
    drawn = page._repr_html_()
    assert len(drawn) < 6_000_000
    assert f"and {50 - SHOWN_ROWS} more rows" in drawn
    assert len(Page(drawn).images) == 2 * SHOWN_ROWS
    assert len(str(page).splitlines()) < 40


def test_a_large_file_is_made_smaller_where_pillow_is(monkeypatch):
    photo = file_of(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))
    assert len(photo) > MOST_EMBEDDED
    [(_, image)] = page_of(labelled(), {"image": files(photo)}).images
    assert image.size == (256, 256)
    broken = page_of(labelled(), {"image": files(photo[: MOST_EMBEDDED + 1])})
    assert "a picture of 100,001 bytes" in broken.text
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    page = page_of(labelled(), {"image": files(photo)})
    assert page.images == []
    assert f"a picture of {len(photo):,} bytes" in page.text


def test_no_rows_and_no_outputs():
    assert page_of(labelled(0)).images == []
    assert page_of({}).images == []
    assert str(Prediction({}, "m", None, "encoded"))


DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(),
    arrays.floating_dtypes(sizes=(16, 32, 64)),
    arrays.complex_number_dtypes(),
    st.just(np.dtype(ml_dtypes.bfloat16)),
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(
        np.dtype("f4") if dtype.kind == "V" else dtype,
        arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    ).map(lambda array: array.astype(dtype))
)


@pytest.mark.parametrize("name", ["heatmap", "mask", "picture", "label"])
@pytest.mark.parametrize("shape", [(1, 0, 0), (1, 0, 5), (1, 5, 0), (1, 0, 5, 3), (1, 5, 0, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_what_has_no_height_or_width_is_told_as_empty(name, shape, dtype):
    page = page_of({name: np.zeros(shape, dtype)}, {"image": np.zeros((1, 8, 8, 1), np.uint8)})
    assert "empty" in page.text
    assert len(page.images) == 1


@given(
    outputs=st.dictionaries(st.sampled_from(["a", "heatmap", "mask"]), ARRAYS, max_size=3),
    inputs=st.dictionaries(st.sampled_from(["image", "size"]), ARRAYS, max_size=2),
)
def test_whatever_tensors_come_are_drawn(outputs, inputs):
    page_of(outputs, inputs)
    assert str(Prediction(outputs, "m", 1, "encoded"))
