"""Which names of inputs and outputs Keras made up, and which somebody chose, who asks by them."""

from pathlib import Path

import keras
import pytest
from keras import layers

import training
from training.adopting.adopt import Adopted, Wishes, adopt
from training.adopting.loading import load
from training.publishing.saved_model import Session


def take(model: keras.Model | Path) -> Adopted:
    return adopt(load(model, None, allow_code=False), Wishes(preprocess="raw"), lambda *_: None)


def heads(adopted: Adopted) -> list[str]:
    return [*adopted.model.output]


@pytest.mark.parametrize(
    "name", ["user_input", "item_input", "x", "input", "inputs", "args", "sequential_of_moves"]
)
def test_an_inputs_name_that_somebody_chose_stays(name: str) -> None:
    given = keras.Input((4,), name=name)
    assert [*take(keras.Model(given, layers.Dense(3)(given))).inputs] == [name]


def test_an_input_may_be_called_after_the_layer_that_it_goes_to() -> None:
    user, item = (keras.Input((1,), name=f"{each}_input") for each in ("user", "item"))
    x = [layers.Embedding(9, 4, name="user")(user), layers.Embedding(9, 4, name="item")(item)]
    rating = layers.Dense(1)(layers.Flatten()(layers.Concatenate()(x)))
    assert [*take(keras.Model([user, item], rating)).inputs] == ["user_input", "item_input"]


@pytest.mark.parametrize("first", ["dense_7", "encoder"])
def test_what_keras_2_called_after_a_sequentials_first_layer_is_renamed(first: str) -> None:
    """As its Sequential does: tf.keras 2.15, engine/sequential.py, `add`."""
    given = keras.Input((4,), name=f"{first}_input")
    model = keras.Sequential([given, layers.Dense(3, name=first), layers.Dense(2)])
    assert [*take(model).inputs] == ["numbers"]


def test_the_inputs_of_two_sequentials_in_one_model_are_renamed() -> None:
    branches = []
    for first in ("dense_1", "dense_2"):
        given = keras.Input((4,), name=f"{first}_input")
        branches.append(keras.Sequential([given, layers.Dense(3, name=first)]))
    together = layers.Concatenate()([each.outputs[0] for each in branches])
    model = keras.Model([each.inputs[0] for each in branches], layers.Dense(2)(together))
    assert [*take(model).inputs] == ["numbers", "numbers_2"]


def test_the_name_that_a_file_gives_an_input_is_renamed(tmp_path: Path) -> None:
    given = keras.Input((4,))
    keras.Model(given, layers.Dense(3)(given)).save(tmp_path / "own.keras")
    assert [*take(tmp_path / "own.keras").inputs] == ["numbers"]


def test_inputs_whose_names_differ_by_a_capital_are_published(tmp_path: Path) -> None:
    given = [keras.Input((1,), name=name) for name in ("A", "a")]
    version = training.publish(
        keras.Model(given, {"B": given[0] - given[1], "b": given[1]}),
        model_repository=tmp_path,
        name="capitals",
        say=lambda _: None,
    )
    with Session(version) as session:
        answer = session.run("serving_default", {"A": [[3.0]], "a_2": [[1.0]]})
    assert {name: float(value[0, 0]) for name, value in answer.items()} == {"B": 2, "b": 1}


@pytest.mark.parametrize("name", ["model", "add", "activation", "output", "output_1", "dense"])
def test_an_outputs_name_that_somebody_chose_stays(name: str) -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(3, 3, name=name)(image)
    assert heads(take(keras.Model(image, x))) == [name]
    assert heads(take(keras.Model(image, {name: layers.Flatten()(x)}))) == [name]


def test_an_output_called_after_its_layers_class_is_renamed() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(image)
    inner = keras.Model(image, x)
    for output in (
        layers.Dense(3)(x),
        layers.GaussianNoise(1.0)(x),
        x[:, 1:],
        keras.ops.sigmoid(x) * 2,
        inner(image),
        layers.Conv2D(2, 3)(image),
    ):
        assert heads(take(keras.Model(image, output)))[0] in ("output", "logits")
