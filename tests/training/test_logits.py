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
from training.data.heads import Logit, Mask
from training.errors import BadSetting, CannotAdopt
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


def test_one_number_tells_two_classes_apart_by_its_sigmoid(tmp_path: Path) -> None:
    """As keras.io's first model of pictures does, cats and dogs."""
    version = training.publish(
        brightness(of_white=8),
        model_repository=tmp_path,
        name="light",
        labels=["dark", "bright"],
        say=lambda _: None,
    )
    white, black = (
        np.array([encode_png(np.full((8, 8, 3), value, np.uint8))], object) for value in (255, 0)
    )
    with Session(version) as session:
        for picture, best, logit in (white, b"bright", 4.0), (black, b"dark", -4.0):
            answer = session.run(ENCODED_SIGNATURE, {"image": picture})
            assert answer["label_classes"][0, 0] == best
            assert answer["label_scores"][0, 0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-5)
            assert answer["label"] == pytest.approx(np.array([[logit]]), rel=1e-5)
        asked = {"image": white, "class": np.array([1], np.int32)}
        heat = session.run(EXPLAINED_BY[ENCODED_SIGNATURE], asked)
    assert heat["score"][0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-5)
    assert heat["heatmap"].max() == 1


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


def test_an_answer_that_is_no_row_for_each_row_is_refused() -> None:
    image = keras.Input((8, 8, 3), name="image")
    pixels = keras.Model(image, keras.ops.reshape(image, (-1,)))
    with pytest.raises(CannotAdopt, match="output 1 of the model has 384 rows for 2 rows"):
        take(pixels, preprocess="raw")


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
    ],
)
def test_rows_that_are_others_beside_each_other_are_refused(answer) -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    with pytest.raises(CannotAdopt, match=r"output 1 .* for a row alone than beside a second"):
        take(keras.Model(image, answer(x)))


def test_what_is_drawn_is_not_taken_for_what_another_row_does() -> None:
    model = Drawing()
    model(np.zeros((1, 8, 8, 3)))
    assert take(model, preprocess="raw").heads == {}
