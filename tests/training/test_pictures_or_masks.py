"""Pictures that a model makes, and masks that it lays over one: which of the two an output is."""

import json
from pathlib import Path

import keras
import pytest
from keras import layers

import training
from training.adopting.adopt import Adopted, Wishes, adopt
from training.data.heads import Classes, Mask
from training.errors import CannotAdopt, UnknownName
from training.publishing.saved_model import Session


def take(model: keras.Model, **wishes) -> Adopted:
    return adopt(model, Wishes(preprocess="scale01", **wishes), lambda *_: None)


def drawn(taken: int, given: int, activation: str | None) -> keras.Model:
    """A picture of `taken` channels in, [N, 8, 8, given] out."""
    image = keras.Input((8, 8, taken), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    return keras.Model(image, layers.Conv2D(given, 3, padding="same", activation=activation)(x))


@pytest.mark.parametrize(
    ("taken", "given", "activation", "kind"),
    [
        (3, 3, "sigmoid", "picture"),  # an autoencoder, a denoiser
        (3, 3, "tanh", "picture"),  # one of another style
        (3, 3, None, "picture"),
        (1, 3, "sigmoid", "picture"),  # one that colours it
        (1, 1, "sigmoid", "picture"),
        (3, 1, "sigmoid", "mask"),
        (3, 3, "softmax", "mask"),
        (1, 5, "softmax", "mask"),
        (1, 5, "sigmoid", "mask"),
        (1, 5, None, "mask"),
    ],
)
def test_what_is_made_of_a_picture_is_told_by_channels_and_activation(
    taken: int, given: int, activation: str | None, kind: str
) -> None:
    adopted = take(drawn(taken, given, activation))
    assert adopted.kinds == {kind: kind}
    note = adopted.notes[-1]
    assert f", as it is, a {kind}" in note
    is_told = activation != "softmax" and given in (1, 3)
    assert ("say --output" in note) == is_told


def test_what_a_model_draws_of_noise_is_a_picture() -> None:
    noise = keras.Input((4,), name="noise")
    grey = layers.Reshape((8, 8, 1))(layers.Dense(64)(noise))
    model = keras.Model(noise, layers.Conv2D(1, 3, padding="same", activation="tanh")(grey))
    assert take(model).kinds == {"picture": "picture"}
    flat = layers.Dense(192, activation="tanh")(noise)
    assert take(keras.Model(noise, layers.Reshape((8, 8, 3))(flat))).kinds == {"picture": "picture"}
    features = keras.Model(noise, layers.Conv2D(3, 3)(grey))
    assert take(features).kinds == {}


def test_what_was_guessed_is_overruled_by_either_name() -> None:
    model = drawn(3, 3, "sigmoid")
    assert take(model, outputs={"picture": "mask"}).kinds == {"mask": "mask"}
    assert take(model, outputs={model.output_names[0]: "mask"}).kinds == {"mask": "mask"}
    assert take(drawn(3, 1, "sigmoid"), outputs={"mask": "picture"}).kinds == {"picture": "picture"}
    named = keras.Model(model.input, {"decoded": model.output})
    adopted = take(named, outputs={"decoded": "mask"})
    assert adopted.kinds == {"decoded": "mask"}
    assert "say --output" not in adopted.notes[-1]


def test_labels_make_a_mask_of_what_may_be_either() -> None:
    labels = ["sky", "road", "car"]
    assert take(drawn(3, 3, "sigmoid"), labels=labels).heads == {"mask": Mask(tuple(labels))}
    assert take(drawn(1, 3, None), labels=labels).heads == {"mask": Mask(tuple(labels))}
    image = keras.Input((8, 8, 3), name="image")
    picture = layers.Conv2D(3, 3, padding="same", activation="sigmoid", name="cleaned")(image)
    kind = layers.Dense(3, activation="softmax", name="kind")(layers.Flatten()(image))
    model = keras.Model(image, [picture, kind])
    assert take(model, labels=labels).heads == {"kind": Classes(tuple(labels))}
    both = take(model, labels=labels, outputs={"cleaned": "mask"}).heads
    assert both == {"cleaned": Mask(tuple(labels)), "kind": Classes(tuple(labels))}


@pytest.mark.parametrize(
    ("outputs", "error", "words"),
    [
        ({"no": "mask"}, UnknownName, "has no output 'no'"),
        ({"picture": "photo"}, UnknownName, "no kind of output 'photo'"),
        ({"label": "mask"}, CannotAdopt, r"\[N,3\], which no mask can be"),
        ({"five": "picture"}, CannotAdopt, r"\[N,6,6,5\], which no picture can be: .* 1 or 3"),
    ],
)
def test_what_an_output_cannot_be_is_refused(outputs, error, words: str) -> None:
    image = keras.Input((8, 8, 3), name="image")
    label = layers.Dense(3, activation="softmax")(layers.Flatten()(image))
    picture = layers.Conv2D(3, 1, activation="sigmoid")(image)
    five = layers.Conv2D(5, 3, name="five")(image)
    with pytest.raises(error, match=words):
        take(keras.Model(image, [label, picture, five]), outputs=outputs)


def test_labels_do_not_go_to_the_box_beside_the_classes() -> None:
    labels = ["cat", "dog", "fish", "bird"]
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(image)
    box, kind = (
        layers.Dense(4, name="box")(x),
        layers.Dense(4, activation="softmax", name="kind")(x),
    )
    assert take(keras.Model(image, [box, kind]), labels=labels).heads == {
        "kind": Classes(tuple(labels))
    }
    logits = layers.Dense(4, name="kind")(x)
    both = keras.Model(image, [box, logits])
    assert [*take(both, labels=labels).heads] == ["box", "kind"]
    assert [*take(both, labels=labels, outputs={"box": "numbers"}).heads] == ["kind"]


def test_what_it_was_taken_for_stands_beside_the_version(tmp_path: Path) -> None:
    version = training.publish(
        drawn(1, 1, "sigmoid"),
        model_repository=tmp_path,
        name="cleaner",
        preprocess="scale01",
        outputs={"picture": "mask"},
        say=lambda _: None,
    )
    assert json.loads((version / "metrics.json").read_text())["kinds"] == {"mask": "mask"}
    with Session(version) as session:
        assert [*session._signatures["serving_default"].outputs] == ["mask"]
