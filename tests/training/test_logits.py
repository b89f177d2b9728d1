"""Models whose last activation was left to the loss, pictures of whole numbers, and rows that are
none of their own."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import training
from sluice.wire.contract import ENCODED_SIGNATURE, EXPLAINED_BY
from training.adopting.adopt import Adopted, Wishes, adopt
from training.data.heads import Chance, Logit, Mask
from training.errors import BadSetting, CannotAdopt
from training.publishing.comparison import Figure, compare_on
from training.publishing.held_out import HeldOut
from training.publishing.saved_model import Session
from training.publishing.trials import encode_png


def take(model: keras.Model, **wishes) -> Adopted:
    return adopt(model, Wishes(**wishes), lambda *_: None)


def on_pixels(*last: layers.Layer) -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    for layer in last:
        x = layer(x)
    return keras.Model(image, x)


def brightness(of_white: float) -> keras.Model:
    """One number: the picture's mean, 0..1, times `of_white`, less half of it."""
    dense = layers.Dense(1, name="dense")
    model = on_pixels(layers.Conv2D(1, 1, kernel_initializer="ones"), layers.Flatten(), dense)
    dense.set_weights([np.full((64, 1), of_white / 64 / 3), np.array([-of_white / 2])])
    return model


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.publish(
        brightness(of_white=8),
        model_repository=tmp_path_factory.mktemp("repository"),
        name="light",
        labels=["dark", "bright"],
        say=lambda _: None,
    )


def test_one_number_tells_two_classes_apart_by_its_sigmoid(light: Path) -> None:
    """As keras.io's first model of pictures does, cats and dogs."""
    white, black = (
        np.array([encode_png(np.full((8, 8, 3), value, np.uint8))], object) for value in (255, 0)
    )
    with Session(light) as session:
        for picture, best, logit in (white, b"bright", 4.0), (black, b"dark", -4.0):
            answer = session.run(ENCODED_SIGNATURE, {"image": picture})
            assert answer["label_classes"][0, 0] == best
            assert answer["label_scores"][0, 0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-5)
            assert answer["label"] == pytest.approx(np.array([[logit]]), rel=1e-5)
        asked = {"image": white, "class": np.array([1], np.int32)}
        heat = session.run(EXPLAINED_BY[ENCODED_SIGNATURE], asked)
    assert heat["score"][0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-5)
    assert heat["heatmap"].max() == 1


def test_a_logit_that_is_live_is_compared_with_a_chance_by_what_it_says(light: Path) -> None:
    model = brightness(of_white=8)
    chance = keras.Model(model.input, layers.Activation("sigmoid")(model.output))
    new = take(chance, labels=["dark", "bright"])
    assert new.heads == {"label": Chance(("dark", "bright"))}
    pictures = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 130, 255)])
    samples = HeldOut(
        {"image": pictures}, {"label": np.array([0, 1, 1])}, {"label": ("dark", "bright")}
    )
    compared = compare_on(samples, new.model, new.heads, light)
    assert compared.figures == [Figure("label", "accuracy", live=1.0, new=1.0)]


@pytest.mark.parametrize(
    "chance",
    [
        lambda x: layers.Average()([layers.Dense(1, activation="sigmoid")(x) for _ in range(2)]),
        lambda x: 1 - layers.Dense(1, activation="sigmoid")(x),
        lambda x: layers.Dense(2, activation="softmax")(x)[:, 1:],
    ],
)
def test_a_number_that_is_computed_from_others_is_no_logit(chance) -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    with pytest.raises(BadSetting, match="2 labels were given"):
        take(keras.Model(image, chance(x)), labels=["cat", "dog"])


class OfItsOwn(keras.Model):
    """`after` is what its call makes of the last layer's number."""

    def __init__(self, after) -> None:
        super().__init__()
        self.after = after
        self.flatten, self.dense = layers.Flatten(), layers.Dense(1, kernel_initializer="ones")

    def call(self, image):
        return self.after(self.dense(self.flatten(image)))


def test_a_call_of_its_own_gives_a_logit_where_it_is_no_chance() -> None:
    logit, chance = OfItsOwn(lambda x: x), OfItsOwn(lambda x: 1 - keras.ops.sigmoid(x))
    for model in (logit, chance):
        model(np.zeros((1, 8, 8, 3)))
    told = {"labels": ["cat", "dog"], "preprocess": "raw"}
    assert [*take(logit, **told).heads.values()] == [Logit(("cat", "dog"))]
    with pytest.raises(BadSetting, match="2 labels were given"):
        take(chance, **told)


def test_one_number_without_two_labels_is_a_number() -> None:
    assert take(brightness(of_white=1)).heads == {}
    with pytest.raises(BadSetting, match=r"\(a, b, c\), and no output .*dense \[N,1\]; without"):
        take(brightness(of_white=1), labels=["a", "b", "c"])


def test_two_labels_go_to_the_output_that_must_have_them() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    age, kind = layers.Dense(1, name="age")(x), layers.Dense(1, name="kind")(x)
    chance = layers.Activation("sigmoid", name="chance")(kind)
    assert [*take(keras.Model(image, [age, chance]), labels=["a", "b"]).heads] == ["chance"]
    with pytest.raises(BadSetting, match=r"age \[N,1\], kind \[N,1\]"):
        take(keras.Model(image, [age, kind]), labels=["a", "b"])
    bounded = layers.Activation("tanh", name="bounded")(kind)
    with pytest.raises(BadSetting, match=r"bounded \[N,1\]"):
        take(keras.Model(image, bounded), labels=["a", "b"])


def test_the_metrics_of_a_logit_are_those_of_its_chance() -> None:
    head = Logit(("cat", "dog"))
    told = head.metrics(np.array([0, 1, 1]), np.array([[-0.5], [0.5], [-0.5]]))
    assert told["accuracy"] == pytest.approx(2 / 3)
    assert told["per_class"] == {"cat": 1.0, "dog": 0.5}


def test_a_mask_without_an_activation_has_its_labels() -> None:
    """As the U-Net of TensorFlow's tutorial has none."""
    mask = on_pixels(layers.Conv2D(3, 3, padding="same"))
    names = ["pet", "background", "border"]
    assert take(mask, labels=names).heads == {"mask": Mask(tuple(names))}
    assert take(mask).heads == {}


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_a_picture_of_whole_numbers_is_what_a_file_has(dtype: str) -> None:
    image = keras.Input((8, 8, 3), dtype=dtype, name="image")
    x = keras.ops.cast(image, "float32") / 255.0
    model = keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
    assert f"pixels: 0..255, as they are, since it takes them as {dtype}" in take(model).notes
    with pytest.raises(BadSetting, match=f"input image is {dtype}.*say raw"):
        take(model, preprocess="scale01")


@pytest.mark.parametrize("dtype", ["int8", "uint16"])
def test_whole_numbers_that_no_file_has_are_asked_about(dtype: str) -> None:
    image = keras.Input((8, 8, 3), dtype=dtype, name="image")
    x = layers.Flatten()(keras.ops.cast(image, "float32"))
    with pytest.raises(CannotAdopt, match="does not say which numbers"):
        take(keras.Model(image, layers.Dense(3, activation="softmax")(x)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda image: keras.ops.reshape(image, (-1,)),
            r"output 1 of the model is \[384\] where the input has 2 rows: ",
        ),
        (
            lambda image: keras.ops.squeeze(keras.ops.mean(image, (1, 2, 3))),
            r"output 1 of the model is \[\] where the input has 1 row: ",
        ),
        (
            lambda image: image + 0 * keras.ops.take(image, [1], axis=0),
            "the model answers two rows and refuses one of them alone ",
        ),
    ],
)
def test_an_answer_that_is_no_row_for_each_row_is_refused(answer, words: str) -> None:
    image = keras.Input((8, 8, 3), name="image")
    with pytest.raises(CannotAdopt, match=words):
        take(keras.Model(image, answer(image)), preprocess="raw")


class Drawing(keras.Model):
    """Its answer hangs on nothing at all."""

    def call(self, image):
        return keras.ops.mean(image, axis=(1, 2)) + tf.random.normal((tf.shape(image)[0], 3))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: keras.ops.softmax(x, axis=0),
        lambda x: x - keras.ops.mean(x, axis=0, keepdims=True),
        lambda x: keras.ops.matmul(x, keras.ops.transpose(x)),
        lambda x: keras.ops.cumsum(x, axis=0),
        lambda x: x + keras.ops.take(x, [0], axis=0),
    ],
)
def test_rows_that_are_others_beside_each_other_are_refused(answer) -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    with pytest.raises(CannotAdopt, match=r"output 1 .* beside another one than beside itself"):
        take(keras.Model(image, answer(x)))


def test_what_is_drawn_is_not_taken_for_what_another_row_does() -> None:
    model = Drawing()
    model(np.zeros((1, 8, 8, 3)))
    assert take(model, preprocess="raw").heads == {}
