"""A published version, run as a model server runs it: by the TF1 loader, with no Keras."""

import io
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import models
from sluice.wire.contract import WARMUP_FILE
from sluice.wire.protos import serving_pb2
from sluice.wire.saved_model import read_signatures
from sluice.wire.versions import published_versions
from training.data.dataset import Dataset, Split
from training.data.heads import Classes, Number
from training.errors import BreakingChange, WrongAnswers
from training.inference import predict
from training.publishing import checks, pictures, samples, saved_model
from training.publishing.publish import publish
from training.publishing.saved_model import Session
from training.publishing.trials import encode_png, trials


@pytest.fixture(scope="module")
def session(version):
    with Session(version) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def requests(model, dataset):
    """By signature: the test images as clients send them."""
    every = ("serving_default", "encoded", "classify")
    asked = trials(model, dataset.test.inputs, dataset.heads, every)
    return {signature: trial.inputs for signature, trial in asked.items()}


@pytest.fixture(scope="module")
def expected(model, dataset):
    return predict(model, dataset.test.inputs)["label"]


def test_a_version_holds_what_the_contract_says(version):
    assert {entry.name for entry in version.iterdir()} == {
        "saved_model.pb",
        "variables",
        "assets",
        "fingerprint.pb",
        "assets.extra",
        "metrics.json",
        "training.png",
        "confusion.png",
        "mistakes.png",
        "architecture.txt",
        "model-card.md",
        "samples",
        "held-out.npz",
    }
    assert version.name == "1"
    assert [entry.name for entry in version.parent.iterdir()] == ["1"]


def test_signatures_have_the_models_own_names(version):
    names = {
        name: (sorted(definition.inputs), sorted(definition.outputs))
        for name, definition in read_signatures(version).items()
    }
    assert names == {
        "serving_default": (["image"], ["label"]),
        "pixels": (["image"], ["label"]),
        "encoded": (["image"], ["label", "label_classes", "label_scores"]),
        "classify": (["inputs"], ["classes", "scores"]),
        "explain": (["class", "image"], ["class", "heatmap", "score"]),
        "explain_encoded": (["class", "image"], ["class", "heatmap", "score"]),
    }
    assert read_signatures(version)["pixels"].inputs["image"].dtype == tf.uint8.as_datatype_enum
    assert read_signatures(version)["classify"].method_name == "tensorflow/serving/classify"
    assert read_signatures(version)["encoded"].method_name == "tensorflow/serving/predict"


def test_serving_default_takes_raw_pixels(session, dataset, expected):
    answer = session.run("serving_default", {"image": dataset.test.inputs["image"]})
    np.testing.assert_allclose(answer["label"], expected, rtol=1e-5, atol=1e-6)


def test_pixels_takes_them_as_uint8(session, dataset, expected):
    answer = session.run("pixels", {"image": dataset.test.inputs["image"].astype(np.uint8)})
    np.testing.assert_allclose(answer["label"], expected, rtol=1e-5, atol=1e-6)


def test_encoded_names_the_best_classes(session, requests, expected):
    answer = session.run("encoded", requests["encoded"])
    np.testing.assert_allclose(answer["label"], expected, rtol=1e-5, atol=1e-6)
    order = np.argsort(-expected, axis=-1, kind="stable")[:, :5]
    assert [[int(label) for label in row] for row in answer["label_classes"]] == order.tolist()
    np.testing.assert_allclose(
        answer["label_scores"], np.take_along_axis(expected, order, -1), rtol=1e-5, atol=1e-6
    )


def test_classify_takes_examples(session, requests, expected):
    answer = session.run("classify", requests["classify"])
    assert [int(row[0]) for row in answer["classes"]] == expected.argmax(-1).tolist()
    np.testing.assert_allclose(answer["scores"][:, 0], expected.max(-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("signature", "inputs", "output"),
    [
        ("serving_default", {"image": np.zeros((0, 8, 8, 1), np.float32)}, "label"),
        ("pixels", {"image": np.zeros((0, 8, 8, 1), np.uint8)}, "label"),
        ("encoded", {"image": np.zeros(0, object)}, "label_classes"),
        ("classify", {"inputs": np.zeros(0, object)}, "scores"),
    ],
)
def test_an_empty_batch_gives_an_empty_answer(session, signature, inputs, output):
    assert session.run(signature, inputs)[output].shape[0] == 0


def test_tensorflow_two_loads_it_too(version, dataset, expected):
    loaded = tf.saved_model.load(str(version))
    image = tf.constant(dataset.test.inputs["image"], tf.float32)
    answer = loaded.signatures["serving_default"](image=image)
    np.testing.assert_allclose(answer["label"], expected, rtol=1e-5, atol=1e-6)


class TestImageFiles:
    """Every format and colour mode comes to the model's [8, 8, 1]."""

    GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4

    def answer(self, session, *files: bytes):
        return session.run("encoded", {"image": np.array(files, object)})["label"]

    def file(self, image: Image.Image, kind: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    @pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
    def test_a_grey_png_keeps_its_numbers(self, session, mode):
        raw = session.run("serving_default", {"image": self.GREY[None, ..., None]})["label"]
        image = (
            Image.fromarray(self.GREY.astype(np.uint16) * 257)
            if mode == "I;16"
            else Image.fromarray(self.GREY).convert(mode)
        )
        np.testing.assert_array_equal(self.answer(session, self.file(image, "PNG")), raw)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_a_coloured_png_becomes_its_luminance(self, session, mode):
        raw = session.run("serving_default", {"image": self.GREY[None, ..., None]})["label"]
        image = Image.fromarray(self.GREY).convert(mode)
        np.testing.assert_allclose(
            self.answer(session, self.file(image, "PNG")), raw, rtol=1e-2, atol=1e-3
        )

    @pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG"])
    def test_other_formats_are_close(self, session, kind):
        smooth = Image.fromarray(np.full((8, 8), 100, np.uint8))
        raw = session.run("serving_default", {"image": np.full((1, 8, 8, 1), 100)})["label"]
        np.testing.assert_allclose(self.answer(session, self.file(smooth, kind)), raw, rtol=0.05)

    def test_of_an_animation_the_first_frame_counts(self, session):
        frames = [Image.fromarray(self.GREY), Image.fromarray(255 - self.GREY)]
        moving = self.file(frames[0], "GIF", save_all=True, append_images=frames[1:])
        still = self.file(frames[0], "GIF")
        np.testing.assert_array_equal(self.answer(session, moving), self.answer(session, still))

    def test_sizes_may_differ_within_a_batch(self, session):
        large = Image.fromarray(np.full((300, 200, 3), 100, np.uint8))
        small = Image.fromarray(np.full((8, 8), 100, np.uint8))
        answers = self.answer(session, self.file(large, "PNG"), self.file(small, "PNG"))
        np.testing.assert_allclose(answers[0], answers[1], rtol=1e-2)

    def test_what_is_no_image_is_an_invalid_argument(self, session):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected an image"):
            self.answer(session, b"no image")


def test_warm_up_has_a_real_request_for_every_signature(version, session):
    records = [
        serving_pb2.PredictionLog.FromString(raw.numpy())
        for raw in tf.data.TFRecordDataset(str(version / WARMUP_FILE))
    ]
    predicts = {
        log.predict_log.request.model_spec.signature_name: log.predict_log.request
        for log in records
        if log.HasField("predict_log")
    }
    [classify] = [log.classify_log.request for log in records if log.HasField("classify_log")]
    assert set(predicts) == {
        "serving_default",
        "pixels",
        "encoded",
        "explain",
        "explain_encoded",
    }
    assert {request.model_spec.name for request in [*predicts.values(), classify]} == {"digits"}
    image = tf.make_ndarray(
        tf.make_tensor_proto(0.0).FromString(
            predicts["serving_default"].inputs["image"].SerializeToString()
        )
    )
    assert image.shape == (1, 8, 8, 1)
    [example] = classify.input.example_list.examples
    session.run("classify", {"inputs": np.array([example.SerializeToString()], object)})
    session.run("encoded", {"image": np.array(predicts["encoded"].inputs["image"].string_val)})


def test_metrics_tell_how_it_was_made(version, run_of):
    facts = json.loads((version / "metrics.json").read_text())
    assert facts["accuracy"] == run_of().evaluation.accuracy
    assert facts["heads"]["label"]["accuracy"] == facts["accuracy"]
    assert facts["curves"] == {"loss": [2.0, 1.0]}
    assert facts["recipe"]["name"] == "digits"
    assert facts["labels"] == {"label": list("0123456789")}
    assert facts["signatures"]["encoded"]["inputs"] == {"image": "string[?]"}
    assert facts["examples"] == {"train": 96, "validation": 32, "test": 64}
    assert set(facts["versions"]) == {"python", "keras", "tensorflow", "numpy"}


def test_samples_are_held_out_images_named_by_their_label(version, dataset):
    images = dataset.test.inputs["image"][dataset.test.targets["label"] == 3]
    with Image.open(version / "samples" / "3-0.png") as sample:
        np.testing.assert_array_equal(np.asarray(sample), images[0][..., 0])
    assert (version / "samples" / "3-0.png").read_bytes() == encode_png(images[0])


@pytest.mark.parametrize(("label", "name"), [("T-shirt/top", "t-shirt-top"), ("Äpfel", "äpfel")])
def test_a_samples_name_keeps_the_letters_of_any_script(tmp_path, label, name):
    one = Split({"image": np.zeros((1, 8, 8, 1), np.uint8)}, {"label": np.zeros(1, np.int64)})
    dataset = Dataset(one, one, one, {"label": Classes((label,))}, "one")
    assert samples.write(tmp_path / "samples", dataset) == [f"{name}-0.png"]


def test_pictures_and_texts_are_there(version):
    for name in ("training.png", "confusion.png"):
        with Image.open(version / name) as picture:
            assert picture.width > 300
    assert "Conv2D" in (version / "architecture.txt").read_text()
    card = (version / "model-card.md").read_text()
    assert "(training.png)" in card and "`encoded`" in card


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (9, 2), (16, 2)])
def test_a_grid_of_images_has_no_blank_row(tmp_path, count, rows):
    black = np.zeros((count, 8, 8, 1), np.uint8)
    pictures.draw_grid(black, ["1, answered\n7 0.93"] * count, tmp_path / "mistakes.png")
    with Image.open(tmp_path / "mistakes.png") as drawn:
        pixels = np.asarray(drawn.convert("L"))
    dark = (pixels[:, 4] < 50).astype(int)  # left of the captions
    assert (np.diff(dark, prepend=0) == 1).sum() == rows
    assert dark[-5], "the last row reaches the bottom"
    assert pixels.shape[1] == 150 * min(count, 8)


def test_the_next_version_gets_the_next_number(version, model, dataset, run_of, tmp_path):
    assert version.name == "1"
    shutil.copytree(version.parent, tmp_path / "digits")
    assert publish(model, dataset, run_of(), tmp_path, "digits").name == "2"


class TestRefusals:
    def test_random_numbers_at_inference_fail_the_parity_check(self, dataset, run_of, tmp_path):
        image = keras.Input((8, 8, 1), name="image")
        x = keras.layers.Flatten()(image)
        x = keras.layers.Lambda(lambda t: t / 255 + tf.random.uniform(tf.shape(t)))(x)
        noisy = keras.Model(image, keras.layers.Dense(10, "softmax", name="label")(x))
        with pytest.raises(WrongAnswers, match=r"output \w+ of the reloaded .* row \d+ by"):
            publish(noisy, dataset, run_of(noisy), tmp_path, "digits")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("input_name", "shape", "head", "message"),
        [
            ("picture", (8, 8, 1), "label", "input image is gone"),
            ("image", (8, 8, 1), "digit", "output label is gone"),
            ("image", (16, 16, 1), "label", r"was float32\[\?,8,8,1\], is float32\[\?,16,16,1\]"),
        ],
    )
    def test_what_would_break_clients_is_named(
        self, version, tmp_path, input_name, shape, head, message
    ):
        image = keras.Input(shape, name=input_name)
        other = keras.Model(
            image, keras.layers.Dense(10, "softmax", name=head)(keras.layers.Flatten()(image))
        )
        saved_model.write(other, {head: Classes(tuple("0123456789"))}, tmp_path)
        with pytest.raises(BreakingChange, match=message):
            checks.check_compatible(tmp_path, version)

    def test_a_model_that_lost_a_signature_breaks_clients(self, model, version, tmp_path):
        saved_model.write(model, {}, tmp_path)  # with no head that names classes
        with pytest.raises(BreakingChange, match="signature classify is gone"):
            checks.check_compatible(tmp_path, version)

    def test_more_classes_and_more_heads_break_nobody(self, version, tmp_path):
        image = keras.Input((8, 8, 1), name="image")
        x = keras.layers.Flatten()(image)
        outputs = {
            "label": keras.layers.Dense(12, "softmax", name="label")(x),
            "share": keras.layers.Dense(1, name="share")(x),
        }
        heads = {"label": Classes(tuple("0123456789ab")), "share": Number()}
        saved_model.write(keras.Model(image, outputs), heads, tmp_path)
        checks.check_compatible(tmp_path, version)

    def test_a_breaking_version_needs_leave(self, version, dataset, run_of, tmp_path):
        shutil.copytree(version.parent, tmp_path / "digits")
        stack = models.build("cnn_sequential", input_shape=(8, 8, 1), classes=10)
        renamed = keras.Model(
            stack.inputs, {"digit": keras.layers.Identity(name="digit")(stack.outputs[0])}
        )
        other = Dataset(
            *(getattr(dataset, part) for part in ("train", "validation")),
            relabelled(dataset),
            {"digit": dataset.heads["label"]},
            "test",
        )
        run = run_of(renamed, other)
        with pytest.raises(BreakingChange, match="version 1"):
            publish(renamed, other, run, tmp_path, "digits")
        assert [*published_versions(tmp_path / "digits")] == [1]
        assert publish(renamed, other, run, tmp_path, "digits", allow_breaking=True).name == "2"


def relabelled(dataset):
    return Split(dataset.test.inputs, {"digit": dataset.test.targets["label"]})
