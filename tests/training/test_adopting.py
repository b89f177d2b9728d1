"""Models that Sluice did not build: from a file to a published version that answers."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import training
from sluice.wire.contract import DEFAULT_SIGNATURE, ENCODED_SIGNATURE, LABELLED_SIGNATURE
from sluice.wire.saved_model import read_signatures
from training.errors import (
    BadSetting,
    BreakingChange,
    CannotAdopt,
    DataError,
    UnknownName,
    WrongAnswers,
)
from training.publishing.saved_model import Session


def cnn(last: layers.Layer, *before: layers.Layer, shape=(16, 16, 3)) -> keras.Model:
    image = keras.Input(shape)
    x = image
    for layer in (*before, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), last):
        x = layer(x)
    return keras.Model(image, x)


@pytest.fixture(scope="module")
def softmax() -> keras.Model:
    return cnn(layers.Dense(3, activation="softmax"), layers.Rescaling(1 / 255))


@pytest.fixture
def said() -> list[str]:
    return []


def publish(model, repository: Path, said: list[str] | None = None, **options) -> Path:
    say = said.append if said is not None else (lambda _line: None)
    return training.publish(model, model_repository=repository, say=say, **options)


def files(*shape: int) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    return np.array([tf.io.encode_png(pixels).numpy()], object)


def ask(version: Path, signature: str, **inputs):
    with Session(version) as session:
        return session.run(signature, inputs)


def test_a_file_is_published_with_labels_and_the_names_that_keras_lost(
    softmax: keras.Model, tmp_path: Path, said: list[str]
) -> None:
    softmax.save(tmp_path / "pets.keras")
    version = publish(tmp_path / "pets.keras", tmp_path, said, labels=["cat", "dog", "fish"])

    assert version == tmp_path / "pets/1"
    answer = ask(version, ENCODED_SIGNATURE, image=files(16, 16, 3))
    assert {*answer} == {"label", "label_classes", "label_scores"}
    assert {*answer["label_classes"][0]} == {b"cat", b"dog", b"fish"}
    assert "input image (Keras: " in said[0]
    assert "Rescaling) is inside the model" in said[1]
    assert (version / "model-card.md").read_text().startswith("# pets\n")


@pytest.mark.parametrize(
    ("preprocess", "low", "high"),
    [("raw", 0, 255), ("scale01", 0, 1), ("scale11", -1, 1)],
)
def test_pixels_come_in_as_they_are_and_are_prepared_in_the_graph(
    tmp_path: Path, preprocess: str, low: float, high: float
) -> None:
    image = keras.Input((2, 2, 1))
    version = publish(
        keras.Model(image, layers.Flatten()(image)), tmp_path, name="flat", preprocess=preprocess
    )
    pixels = np.array([0, 255, 0, 255], np.float32).reshape(1, 2, 2, 1)
    [answer] = ask(version, DEFAULT_SIGNATURE, image=pixels).values()
    assert answer[0].tolist() == pytest.approx([low, high, low, high])


def test_a_function_of_the_users_own_prepares_the_pixels(tmp_path: Path) -> None:
    image = keras.Input((2, 2, 1))
    version = publish(
        keras.Model(image, layers.Flatten()(image)),
        tmp_path,
        name="flat",
        preprocess=lambda pixels: keras.ops.log1p(pixels),
    )
    [answer] = ask(version, DEFAULT_SIGNATURE, image=np.full((1, 2, 2, 1), 9.0)).values()
    assert answer[0, 0] == pytest.approx(np.log(10))


def test_where_the_model_does_not_say_what_it_was_trained_on_somebody_must(tmp_path: Path) -> None:
    model = cnn(layers.Dense(3, activation="softmax"))
    with pytest.raises(CannotAdopt, match="--preprocess"):
        publish(model, tmp_path)
    assert not (tmp_path / model.name / "1").exists()
    asked = []

    def answer(what: str, choices) -> str:
        asked.append(what)
        return choices[1]

    assert publish(model, tmp_path, ask=answer).exists()
    assert len(asked) == 1


def test_logits_and_one_sigmoid_get_scores_that_are_probabilities(tmp_path: Path) -> None:
    rescaling = layers.Rescaling(1 / 255)
    logits = publish(
        cnn(layers.Dense(2), rescaling), tmp_path, name="logits", labels=["cat", "dog"]
    )
    sigmoid = publish(
        cnn(layers.Dense(1, activation="sigmoid"), rescaling),
        tmp_path,
        name="sigmoid",
        labels=["cat", "dog"],
    )
    for version in logits, sigmoid:
        answer = ask(version, ENCODED_SIGNATURE, image=files(16, 16, 3))
        [scores] = (value for name, value in answer.items() if name.endswith("_scores"))
        assert scores.sum() == pytest.approx(1)
        assert scores[0, 0] >= scores[0, 1]


def test_the_classes_have_numbers_where_nobody_names_them(
    softmax: keras.Model, tmp_path: Path, said: list[str]
) -> None:
    version = publish(softmax, tmp_path, said)
    answer = ask(version, ENCODED_SIGNATURE, image=files(16, 16, 3))
    assert {*answer["label_classes"][0]} == {b"0", b"1", b"2"}
    assert "say --labels" in said[-1]


def test_two_pictures_and_a_number(tmp_path: Path) -> None:
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    size = keras.Input((1,), name="size")
    x = layers.Concatenate()([layers.Flatten()(left), layers.Flatten()(right), size])
    model = keras.Model(
        [left, right, size],
        {"same": layers.Dense(1, activation="sigmoid")(x), "gap": layers.Dense(1)(x)},
    )
    version = publish(model, tmp_path, name="pair", preprocess="scale01")
    one = files(8, 8, 1)
    answer = ask(version, ENCODED_SIGNATURE, left=one, right=one, size=np.ones((1, 1)))
    assert {*answer} == {"same", "gap"}


def test_text(tmp_path: Path) -> None:
    vectorize = layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    vectorize.adapt(["good film", "bad film"])
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            vectorize,
            layers.Embedding(20, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    version = publish(model, tmp_path, name="film", labels=["bad", "good"])
    good, nothing = (
        ask(version, DEFAULT_SIGNATURE, text=np.array([[text]], object))["label"]
        for text in (b"good", b"unheard")
    )
    assert not np.allclose(good, nothing)
    answer = ask(version, LABELLED_SIGNATURE, text=np.array([[b"good"]], object))
    best = ["bad", "good"][int(good.argmax())]
    assert answer["label_classes"][0, 0] == best.encode()
    assert answer["label_scores"][0, 0] == pytest.approx(good.max())


def test_a_subclassed_model_that_was_called(tmp_path: Path) -> None:
    class Small(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.flatten, self.dense = layers.Flatten(), layers.Dense(3, activation="softmax")

        def call(self, image):
            return self.dense(self.flatten(image))

    model = Small()
    with pytest.raises(CannotAdopt, match="call it once"):
        publish(model, tmp_path, preprocess="scale01")
    model(np.zeros((1, 8, 8, 1)))
    version = publish(model, tmp_path, preprocess="scale01", name="small")
    assert "label_classes" in ask(version, ENCODED_SIGNATURE, image=files(8, 8, 1))


def test_pictures_of_any_size_are_brought_to_one(tmp_path: Path, said: list[str]) -> None:
    model = cnn(
        layers.Dense(3, activation="softmax"), layers.Rescaling(1 / 255), shape=(None, None, 3)
    )
    assert ENCODED_SIGNATURE not in read_signatures(publish(model, tmp_path, said, name="any"))
    assert "--resize" in said[-1]
    version = publish(model, tmp_path, name="sized", resize=(16, 24))
    assert ENCODED_SIGNATURE in read_signatures(version)
    free = [-1, -1, -1, 3]
    image = read_signatures(version)[DEFAULT_SIGNATURE].inputs["image"]
    assert [dim.size for dim in image.tensor_shape.dim] == free


def test_a_saved_model_is_published_as_it_is(softmax: keras.Model, tmp_path: Path) -> None:
    softmax.export(tmp_path / "exported", verbose=False)
    version = publish(tmp_path / "exported", tmp_path)
    assert [*read_signatures(version)] == ["serve", DEFAULT_SIGNATURE]
    assert (version / "assets.extra/tf_serving_warmup_requests").exists()
    with pytest.raises(CannotAdopt, match="--labels cannot be put into it"):
        publish(tmp_path / "exported", tmp_path, labels=["cat"])


def test_samples_of_the_users_own_lie_beside_the_version(
    softmax: keras.Model, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(folder / f"{number}.png")
    version = publish(softmax, tmp_path, name="pets", samples=[folder])
    assert sorted(each.name for each in (version / "samples").iterdir()) == [
        "sample-0.png",
        "sample-1.png",
        "sample-2.png",
    ]
    assert "3 samples" in (version / "model-card.md").read_text()
    with pytest.raises(DataError, match="cannot be read as a picture"):
        publish(softmax, tmp_path, name="pets", samples=[Path(__file__)])


def test_layers_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "own_sizes.py").write_text("TWICE = 2\n")
    module = tmp_path / "own_layers.py"
    module.write_text(
        "from __future__ import annotations\n\nfrom dataclasses import dataclass\n\n"
        "import keras\n\nfrom own_sizes import TWICE\n\n\n"
        "@dataclass\nclass Size:\n    times: int\n\n\n"
        "class Doubled(keras.layers.Layer):\n"
        "    def call(self, x):\n        return Size(TWICE).times * x\n"
    )
    script = (
        "import keras, own_layers\n"
        "image = keras.Input((8, 8, 1))\n"
        "x = keras.layers.Flatten()(own_layers.Doubled()(image))\n"
        "keras.Model(image, keras.layers.Dense(2, activation='softmax')(x)).save('own.keras')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    own = tmp_path / "own.keras"
    with pytest.raises(CannotAdopt, match=r"'Doubled'.*--custom-objects"):
        publish(own, tmp_path, preprocess="raw")
    assert publish(own, tmp_path, preprocess="raw", custom_objects=str(module)).exists()


def test_what_is_no_model_is_told_so_with_the_way_out(softmax: keras.Model, tmp_path: Path) -> None:
    softmax.save_weights(tmp_path / "pets.weights.h5")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "folder").mkdir()
    for path, words in {
        "nowhere.keras": "there is no",
        "pets.weights.h5": "weights without their model",
        "net.onnx": "ONNX",
        "notes.txt": "no Keras model",
        "folder": "no SavedModel",
    }.items():
        with pytest.raises(CannotAdopt, match=words):
            publish(tmp_path / path, tmp_path)


def test_a_model_that_cannot_be_served_is_told_why(tmp_path: Path) -> None:
    fixed = keras.Input(batch_shape=(1, 8, 8, 1))
    with pytest.raises(CannotAdopt, match="first axis must be free"):
        publish(keras.Model(fixed, layers.Flatten()(fixed)), tmp_path, preprocess="raw")
    first = keras.Input((1, 8, 8))
    pooled = layers.GlobalAveragePooling2D(data_format="channels_first")(first)
    with pytest.raises(CannotAdopt, match="channels first"):
        publish(keras.Model(first, pooled), tmp_path, preprocess="raw")


def test_a_lambda_layer_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 1))
    halved = layers.Lambda(lambda x: x / 2, output_shape=(8, 8, 1))(image)
    keras.Model(image, layers.Flatten()(halved)).save(tmp_path / "own.keras")
    with pytest.raises(CannotAdopt, match="--allow-code"):
        publish(tmp_path / "own.keras", tmp_path, preprocess="raw")
    assert publish(tmp_path / "own.keras", tmp_path, preprocess="raw", allow_code=True).exists()


def test_wishes_that_do_not_fit_are_named(softmax: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="2 labels"):
        publish(softmax, tmp_path, labels=["cat", "dog"])
    with pytest.raises(UnknownName, match=r"'imag'.*image"):
        publish(softmax, tmp_path, inputs={"imag": "image"})
    with pytest.raises(UnknownName, match="'picture'"):
        publish(softmax, tmp_path, inputs={"image": "picture"})


def test_clients_of_the_version_before_are_looked_after(
    softmax: keras.Model, tmp_path: Path
) -> None:
    publish(softmax, tmp_path, name="pets")
    wider = cnn(layers.Dense(3, activation="softmax"), layers.Rescaling(1.0), shape=(16, 16, 1))
    with pytest.raises(BreakingChange):
        publish(wider, tmp_path, name="pets")
    assert publish(wider, tmp_path, name="pets", allow_breaking=True).name == "2"


class InWords(keras.Model):
    def call(self, image):
        bright = keras.ops.mean(image, axis=(1, 2, 3)) > 100
        return {"said": tf.where(bright, "bright", "dark"), "bright": bright}


class Choosy(keras.Model):
    def call(self, image):
        tf.debugging.assert_less(tf.reduce_max(image), 100.0, message="too bright")
        return keras.ops.mean(image, axis=(1, 2))


def test_an_answer_of_another_shape_than_keras_own_is_refused(tmp_path: Path) -> None:
    """As Keras 3.15's TimeDistributed gives it in a graph, where the steps may be any number."""
    steps = keras.Input((None, 6), name="steps")
    x = layers.TimeDistributed(layers.Dense(3, activation="softmax"))(steps)
    words = r"is \[2, 2, 3\], and the Keras model's \[2, 16, 3\].*keras.Input\(shape\)"
    with pytest.raises(WrongAnswers, match=words):
        publish(keras.Model(steps, x), tmp_path, name="steps")


def test_a_model_that_answers_in_words_is_published(tmp_path: Path) -> None:
    model = InWords()
    model(np.zeros((1, 8, 8, 1)))
    version = publish(model, tmp_path, name="words", preprocess="raw")
    answer = ask(version, ENCODED_SIGNATURE, image=files(8, 8, 1))
    assert {name: value.tolist() for name, value in answer.items()} == {
        "said": [b"bright"],
        "bright": [True],
    }


def test_a_model_that_refuses_the_rows_is_told_to_bring_others(tmp_path: Path) -> None:
    model = Choosy()
    model(np.zeros((1, 8, 8, 1)))
    with pytest.raises(CannotAdopt, match=r"refuses the random rows .*too bright.*say --sample"):
        publish(model, tmp_path, name="choosy", preprocess="raw")
    assert not (tmp_path / "choosy").exists()
