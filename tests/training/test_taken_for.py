"""What models of all kinds are taken for, and what is said of those that cannot be served."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import training
from training.adopting.adopt import Adopted, Wishes, adopt
from training.adopting.loading import load
from training.data.heads import Classes, Logits, Mask
from training.errors import CannotAdopt, PublishError, TrainingError


def take(model: keras.Model, **wishes: Any) -> Adopted:
    return adopt(load(model, None, allow_code=False), Wishes(**wishes), lambda *_: None)


def outputs_of(adopted: Adopted) -> list[str]:
    rows = [np.zeros((1, *each.shape), np.float32) for each in adopted.inputs.values()]
    return [*adopted.model(rows)]


def flat_picture() -> tuple[keras.KerasTensor, keras.KerasTensor]:
    image = keras.Input((8, 8, 1), name="image")
    return image, layers.Flatten()(layers.Rescaling(1 / 255)(image))


class Pair(keras.Model):
    """Takes a dict or a list of a picture and numbers, and answers in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3)

    def call(self, inputs):
        image, sizes = (inputs["image"], inputs["sizes"]) if isinstance(inputs, dict) else inputs
        return {"second": self.dense(self.flatten(image)), "first": sizes}


class Numpy(keras.Model):
    def call(self, image):
        return np.asarray(image).sum((1, 2))


class TwoArguments(keras.Model):
    def call(self, image, sizes):
        return keras.ops.sum(image, axis=(1, 2)) + sizes


def called(model: keras.Model, *batch: Any) -> keras.Model:
    model(*batch)
    return model


def test_the_outputs_of_a_dict_keep_their_own_activations() -> None:
    image, x = flat_picture()
    adopted = take(
        keras.Model(
            image,
            {"kind": layers.Dense(3, activation="softmax")(x), "age": layers.Dense(1)(x)},
        ),
        labels=["cat", "dog", "fish"],
    )
    assert adopted.heads == {"kind": Classes(("cat", "dog", "fish"))}


def test_outputs_in_a_dict_of_dicts_and_lists_have_their_ways_as_names() -> None:
    image, x = flat_picture()
    outputs = {
        "kind": {"animal": layers.Dense(3, activation="softmax")(x)},
        "box": [layers.Dense(2)(x), layers.Dense(2)(x)],
    }
    assert outputs_of(take(keras.Model(image, outputs))) == ["box_0", "box_1", "kind_animal"]


@pytest.mark.parametrize("form", [dict, list])
def test_a_subclassed_model_that_takes_several_inputs(form: type) -> None:
    batch = {"sizes": np.zeros((1, 4)), "image": np.zeros((1, 8, 8, 1))}
    given = batch if form is dict else [batch["image"], batch["sizes"]]
    adopted = take(called(Pair(), given), preprocess="raw")
    assert {name: each.shape for name, each in adopted.inputs.items()} == (
        {"sizes": (4,), "image": (8, 8, 1)}
        if form is dict
        else {"image": (8, 8, 1), "numbers": (4,)}
    )
    rows = [np.ones((5, *each.shape), np.float32) for each in adopted.inputs.values()]
    assert {name: output.shape for name, output in adopted.model(rows).items()} == {
        "first": (5, 4),
        "second": (5, 3),
    }


def test_a_sequential_that_was_called_takes_any_number_of_rows() -> None:
    model = keras.Sequential([layers.Flatten(), layers.Dense(3, activation="softmax")])
    model(np.zeros((1, 8, 8, 1)))
    adopted = take(model, preprocess="raw")
    pixels = np.ones((5, 8, 8, 1), np.float32)
    assert np.allclose(adopted.model([pixels])["label"][:1], model(pixels[:1]))
    assert len(adopted.model([pixels])["label"]) == 5


def test_a_grey_picture_without_a_channel_is_a_picture_where_it_is_said_to_be() -> None:
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    assert "say --input numbers=image" in take(model).notes[0]
    adopted = take(model, inputs={"numbers": "image"})
    assert adopted.images == {"image": (28, 28, 1)}
    pixels = np.full((2, 28, 28, 1), 9, np.float32)
    assert np.allclose(adopted.model([pixels])["label"], model(pixels[..., 0]))


@pytest.mark.parametrize("network", ["vgg16", "mobilenet_v2", "densenet"])
def test_a_networks_own_preprocessing_inside_the_model_is_not_done_again(network: str) -> None:
    prepare = getattr(keras.applications, network).preprocess_input
    image = keras.Input((32, 32, 3))
    base = keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten()], name="vgg16")
    adopted = take(keras.Model(image, layers.Dense(3)(base(prepare(image)))))
    assert any("as they are" in note and "operation" in note for note in adopted.notes)


def test_the_preprocessing_of_keras_applications_is_a_function_like_any() -> None:
    image = keras.Input((2, 2, 3))
    prepare = keras.applications.vgg16.preprocess_input
    adopted = take(keras.Model(image, layers.Flatten()(image)), preprocess=prepare)
    pixels = np.full((1, 2, 2, 3), 100, np.float32)
    [output] = adopted.model([pixels]).values()
    assert np.allclose(output, prepare(pixels.copy()).reshape(1, -1))


def test_the_classes_of_a_mask_have_names_too() -> None:
    image, _ = flat_picture()
    mask = layers.Conv2D(2, 3, padding="same", activation="softmax")(image)
    adopted = take(keras.Model(image, mask), preprocess="raw", labels=["ground", "cat"])
    assert adopted.heads == {"mask": Mask(("ground", "cat"))}


def test_names_in_other_letters_stay_words() -> None:
    image, x = flat_picture()
    outputs = {"größe/cm": layers.Dense(1)(x), "种类": layers.Dense(2, activation="softmax")(x)}
    assert outputs_of(take(keras.Model(image, outputs))) == ["gro_e_cm", "label"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Numpy(), "call it once"),
        (lambda: called(Numpy(), np.zeros((1, 8, 8, 1))), "symbolic tf.Tensor.*keras.Input"),
        (
            lambda: called(TwoArguments(), np.zeros((1, 8, 8, 1)), np.zeros((1, 1))),
            "argument: 'sizes'.*a keras.Input for each",
        ),
        (lambda: keras.Model(*total()), r"'sum\w*' is .*one row for each row of the input"),
        (lambda: keras.Model(*sparse()), "is sparse or ragged"),
        (
            lambda: keras.Model(*flat_picture(), name="my model"),
            "'my model' is the name .*size_cm",
        ),
        (
            lambda: keras.Sequential([keras.Input((3,)), layers.Dense(2, name="größe")]),
            "'größe' is the name",
        ),
        (lambda: layers.Dense(3), "expected a Keras model"),
    ],
)
def test_a_model_that_cannot_be_called_is_told_why(
    make: Callable[[], keras.Model], words: str
) -> None:
    with pytest.raises(CannotAdopt, match=words) as raised:
        take(make(), preprocess="raw")
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


def total() -> tuple[keras.KerasTensor, keras.KerasTensor]:
    image, x = flat_picture()
    return image, keras.ops.sum(x)


def sparse() -> tuple[keras.KerasTensor, keras.KerasTensor]:
    words = keras.Input((10,), sparse=True)
    return words, layers.Dense(2)(words)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"labels": "abc"}, "in a list; got str"),
        ({"labels": {0: "a", 1: "b", 2: "c"}}, "in a list; got dict"),
        ({"labels": []}, "got none"),
        ({"labels": ["a", "", "c"]}, "number 2 of 3 is empty"),
        ({"labels": ["a", "a", "c"]}, "named twice: a"),
        ({"labels": ["a", "b\n", "c\u2028d"]}, r"label 3, .*a line's end in it"),
        ({"labels": [str(number) for number in range(10**5)]}, "100000 labels were given"),
        ({"labels": ["a", "b"]}, r"2 labels were given \(a, b\).*\[N,3\]"),
        ({"resize": (32, 32)}, "--resize has nothing to say"),
        ({"inputs": {"image": "text"}}, "no text can be"),
        ({"preprocess": lambda x: x.no_such}, "AttributeError: .*no_such"),
        ({"preprocess": np.asarray}, "preprocessing by asarray fails on image"),
        ({"preprocess": lambda x: x[:, 1:]}, r"cannot be called on .*\[\?,7,8,1\]"),
    ],
)
def test_wishes_that_cannot_be_met_are_told(wishes: dict[str, Any], words: str) -> None:
    image, x = flat_picture()
    model = keras.Model(image, layers.Dense(3, activation="softmax")(x))
    with pytest.raises(TrainingError, match=words):
        take(model, **wishes)


@pytest.mark.parametrize("labels", [np.array(["1", "2"]), [1, 2], (" 1", "2 ")])
def test_labels_may_be_any_sequence_of_names(labels: Any) -> None:
    image, x = flat_picture()
    adopted = take(keras.Model(image, layers.Dense(2)(x)), labels=labels)
    assert adopted.heads == {"label": Logits(("1", "2"))}


def test_a_repository_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image, x = flat_picture()
    for repository in (tmp_path / "file", tmp_path / "file" / "models", Path("/proc/models")):
        with pytest.raises(PublishError, match=f"cannot write to {repository}"):
            training.publish(
                keras.Model(image, x), name="pets", model_repository=repository, say=print
            )


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def thousand(name: str) -> keras.Model:
    image, x = flat_picture()
    return keras.Model(image, layers.Dense(1000, activation="softmax")(x), name=name)


def test_imagenets_labels_are_those_that_keras_has_on_the_disk(keras_home: Path) -> None:
    index = keras_home / "models" / "imagenet_class_index.json"
    adopted = take(thousand("vgg16"))
    assert adopted.heads["label"].labels[:2] == ("0", "1")
    assert f"ImageNet's would be taken from {index}" in adopted.notes[-1]

    index.parent.mkdir()
    names = ["tench", "crane", "crane", *(f"class {number}" for number in range(3, 1000))]
    index.write_text(
        json.dumps({str(number): [f"n{number}", name] for number, name in enumerate(names)})
    )
    adopted = take(thousand("vgg16"))
    assert adopted.heads["label"].labels[:3] == ("tench", "crane (n1)", "crane (n2)")
    assert f"ImageNet's labels, of {index}" in adopted.notes[-1]

    # A network of another name may have other classes: who is at a terminal says.
    assert take(thousand("mine")).heads["label"].labels[0] == "0"
    asked = adopt(thousand("mine"), Wishes(), lambda *_: "yes")
    assert asked.heads["label"].labels[0] == "tench"

    index.write_text("{")
    with pytest.raises(CannotAdopt, match="is damaged or cut short"):
        take(thousand("vgg16"))


class Dense(keras.Model):
    """Its last layer has a softmax; what it answers with is `answer`'s affair."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.numbers = layers.Flatten(), layers.Dense(3)
        self.shares = layers.Dense(64, activation="softmax")
        for layer in (self.numbers, self.shares):
            layer.build((None, 64))

    def call(self, image):
        return self.answer(self.flatten(image))


class HasSoftmax(Dense):
    def answer(self, x):
        return keras.ops.softmax(self.numbers(x))


class HasShares(Dense):
    def answer(self, x):
        weights = keras.ops.exp(self.numbers(x))
        return weights / keras.ops.sum(weights, axis=-1, keepdims=True)


class HasAttention(Dense):
    def answer(self, x):
        return self.numbers(x * self.shares(x))


def ensemble() -> keras.Model:
    image, x = flat_picture()
    members = [layers.Dense(3, activation="softmax")(x) for _ in range(2)]
    return keras.Model(image, layers.Average()(members))


@pytest.mark.parametrize(
    ("make", "head"),
    [
        (HasSoftmax, Classes),
        (HasShares, Classes),
        (ensemble, Classes),
        (HasAttention, Logits),
    ],
)
def test_what_is_a_probability_the_graph_and_the_values_tell(
    make: Callable[[], keras.Model], head: type
) -> None:
    model = called(make(), np.zeros((1, 8, 8, 1)))
    [found] = take(model, preprocess="raw", labels=["a", "b", "c"]).heads.values()
    assert type(found) is head


def test_names_that_python_has_taken_are_said_and_replaced() -> None:
    first, second = keras.Input((8, 8, 1), name="1st"), keras.Input((3,), name="class")
    x = layers.Concatenate()([layers.Flatten()(layers.Rescaling(1 / 255)(first)), second])
    outputs = {"self": layers.Dense(2, activation="softmax")(x), "self_scores": x}
    adopted = take(keras.Model([first, second], outputs))
    assert [*adopted.inputs] == ["image_1st", "numbers_class"]
    assert [tensor.name for tensor in adopted.model.inputs] == ["image_1st", "numbers_class"]
    assert [*adopted.model.output] == ["label_self", "self_scores"]
    assert "input numbers_class (Keras: class)" in adopted.notes[1]


def test_a_model_may_be_called_as_its_input_is() -> None:
    image, x = flat_picture()
    model = keras.Model(image, layers.Dense(3)(x), name="image")
    assert take(model).images == {"image": (8, 8, 1)}
    assert model.name == "image"


def test_what_is_left_out_of_a_layer_at_inference_is_said() -> None:
    image, x = flat_picture()
    x = layers.Dropout(0.5, name="drop")(x, training=True)
    adopted = take(keras.Model(image, layers.Dense(3)(x)))
    assert any("layer drop was built with training=True" in note for note in adopted.notes)
    rows = [np.full((1, 8, 8, 1), 9, np.float32)]
    first, second = (adopted.model(rows, training=False)["logits"] for _ in range(2))
    assert np.array_equal(first, second)
