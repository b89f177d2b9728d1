"""Texts, which a model may pad to the longest of those that are asked together."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import training
from sluice.wire.contract import LABELLED_SIGNATURE
from training.adopting.adopt import Adopted, Wishes, adopt
from training.adopting.loading import load
from training.errors import CannotAdopt
from training.publishing.saved_model import Session

SHORT, LONG = b"one two", b"a cat on a mat one two three a cat on a mat"


def take(model: keras.Model) -> Adopted:
    return adopt(model, Wishes(), lambda *_: None)


def of_texts(*after: layers.Layer, length: int | None = None, mask: bool = False) -> keras.Model:
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=length)
    words.adapt(["a cat on a mat", "one two three"])
    text = keras.Input((1,), dtype="string", name="text")
    x = layers.Embedding(20, 4, mask_zero=mask)(words(text))
    for layer in after:
        x = layer(x)
    return keras.Model(text, x)


def pooled(**words) -> keras.Model:
    return of_texts(layers.GlobalAveragePooling1D(), layers.Dense(3, activation="softmax"), **words)


def test_a_text_has_one_answer_whatever_is_asked_beside_it(tmp_path: Path) -> None:
    model, said = pooled(), []
    short, together = (model(tf.constant(rows)) for rows in ([[SHORT]], [[SHORT], [LONG]]))
    assert not np.allclose(short[0], together[0], rtol=1e-3)

    version = training.publish(
        model, model_repository=tmp_path, name="texts", labels=["a", "b", "c"], say=said.append
    )
    assert any("each is computed by itself" in line for line in said)
    with Session(version) as session:
        for signature in ("serving_default", LABELLED_SIGNATURE):
            rows = np.array([[SHORT], [LONG], [SHORT]], object)
            answer = session.run(signature, {"text": rows})
            assert np.allclose(answer["label"][0], short[0], rtol=1e-5)
            assert np.allclose(answer["label"][2], short[0], rtol=1e-5)
        empty = session.run("serving_default", {"text": rows[:0]})
        assert empty["label"].shape == (0, 3)


def test_several_inputs_and_outputs_of_each_row_stay_together() -> None:
    model = pooled()
    size = keras.Input((2,), name="size")
    long = keras.Model([size, model.inputs[0]], {"kind": model.outputs[0], "twice": size * 2})
    adopted = take(long)
    rows = [np.arange(6, dtype=np.float32).reshape(3, 2), [[SHORT], [LONG], [b"cat"]]]
    answer = adopted.model([tf.constant(each) for each in rows])
    assert np.array_equal(answer["twice"], rows[0] * 2)
    for row in range(3):
        alone = model(tf.constant(rows[1][row : row + 1]))
        assert np.allclose(answer["kind"][row], alone[0], rtol=1e-5)


def test_a_text_that_another_changes_by_little_is_computed_by_itself() -> None:
    keras.utils.set_random_seed(1)
    untrained = of_texts(layers.LSTM(4), layers.Dense(2, activation="softmax"))
    assert any("by itself" in note for note in take(untrained).notes)


def test_texts_that_come_out_ragged_are_told_of() -> None:
    words = layers.TextVectorization(ragged=True)
    words.adapt(["a cat on a mat"])
    text = keras.Input((1,), dtype="string", name="text")
    with pytest.raises(CannotAdopt, match=r"output 1 .* is sparse or ragged: .* densify it"):
        take(keras.Model(text, words(text)))


@pytest.mark.parametrize("words", [{"length": 6}, {"mask": True}])
def test_texts_that_do_not_know_of_each_other_are_computed_together(words) -> None:
    assert not any("by itself" in note for note in take(pooled(**words)).notes)


def test_an_answer_for_each_word_cannot_be_computed_by_itself() -> None:
    model = of_texts(layers.Dense(2), layers.Lambda(lambda x: x - keras.ops.mean(x, 1, True)))
    take(model)  # as long as the longest text: no two of them are compared
    tokens = keras.Model(model.input, [model.output, keras.ops.mean(model.output**2, 1)])
    with pytest.raises(
        CannotAdopt, match=r"output 2 .* beside a longer one.*output_sequence_length"
    ):
        take(tokens)


def test_a_file_without_the_words_is_told_of(tmp_path: Path) -> None:
    """HDF5 keeps no vocabulary."""
    pooled(length=4).save(tmp_path / "texts.h5")
    with pytest.raises(
        CannotAdopt, match=r"has no words .*save it with model.save\('model.keras'\)"
    ):
        take(load(tmp_path / "texts.h5", None, allow_code=False))


def test_a_text_that_is_refused_alone_is_told_of_its_length() -> None:
    model = of_texts(layers.Conv1D(4, 30), layers.GlobalMaxPooling1D(), layers.Dense(2))
    with pytest.raises(CannotAdopt, match=r"refuses one of them alone.*output_sequence_length"):
        take(model)
