"""Held-out images as the requests that clients will send, with the Keras model's own answers."""

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import models
from models.adversarial import GAN
from sluice.wire.contract import (
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    ENCODED_SIGNATURE,
    EXPLAINED_BY,
    LABELLED_SIGNATURE,
    NOVELTY,
    PIXELS_SIGNATURE,
)
from sluice.wire.protos.tensorflow_pb2 import Example
from sluice.wire.tensors import Array
from training.data.dataset import Arrays
from training.data.heads import Head, naming
from training.explaining.explainer import Explainer
from training.inference import answering, as_dtype, predict
from training.novelty.fitting import Novelty
from training.publishing.signatures import GENERATE, TOP

_DEVICE = "/CPU:0"  # where the written graph is tried too: a GPU sums in another order

Trials = dict[str, "Trial"]


@dataclass(frozen=True)
class Trial:
    """inputs: a request for one signature; expected: by output name, what Keras answers to it.

    >>> Trial({"image": np.zeros((1, 8, 8, 1))}, expected={"label": np.ones((1, 1))}).expected
    {'label': array([[1.]])}
    """

    inputs: Arrays
    expected: Arrays


def trials(
    model: keras.Model,
    inputs: Arrays,
    heads: Mapping[str, Head],
    signatures: Iterable[str],
    images: Collection[str] | None = None,
    explainer: Explainer | None = None,
    novelty: Novelty | None = None,
) -> Trials:
    """By signature: those of the model that `signatures` names.

    images: the inputs, uint8 [N, H, W, C], that are sent as files where files are taken; None: all.
    explainer: of the signatures that explain.
    novelty: what `encoded` says of it, where it does.
    """
    dtypes = {tensor.name: tensor.dtype for tensor in answering(model).inputs}
    pictures = [*inputs] if images is None else images
    files = {
        name: _as_files(array) if name in pictures else array for name, array in inputs.items()
    }
    with tf.device(_DEVICE):
        answers = predict(model, inputs)
        told = {NOVELTY: novelty.scores(model, heads, inputs)} if novelty else {}
    every = {
        DEFAULT_SIGNATURE: Trial(
            {name: as_dtype(array, dtypes[name]) for name, array in inputs.items()}, answers
        ),
        PIXELS_SIGNATURE: Trial(
            {
                name: array if name in pictures else as_dtype(array, dtypes[name])
                for name, array in inputs.items()
            },
            answers,
        ),
        ENCODED_SIGNATURE: Trial(files, {**answers, **told}),
    }
    every[LABELLED_SIGNATURE] = every[DEFAULT_SIGNATURE]
    if CLASSIFY_SIGNATURE in signatures:
        name, head = next(iter(naming(heads).items()))
        best = np.sort(head.probabilities(answers[name]), axis=-1)[:, ::-1][:, :TOP]
        every[CLASSIFY_SIGNATURE] = Trial({"inputs": _as_examples(files)}, {"scores": best})
    if explainer:
        classes, explained = _explained(explainer, every[DEFAULT_SIGNATURE].inputs)
        for name, by in EXPLAINED_BY.items():
            every[by] = Trial({**every[name].inputs, **classes}, explained)
    if isinstance(model, GAN):
        every[GENERATE] = _generated(model, len(files["image"]))
    return {name: every[name] for name in signatures}


def _explained(explainer: Explainer, pixels: Arrays) -> tuple[Arrays, Arrays]:
    """The classes asked, the best one first and then each in turn; and where they are seen."""
    rows = len(next(iter(pixels.values())))
    classes = {
        asked: (np.arange(rows, dtype=np.int32) % (count + 1)) - 1
        for asked, count in explainer.asked.items()
    }
    with tf.device(_DEVICE):
        answer = explainer.graph(
            {name: tf.constant(array) for name, array in {**pixels, **classes}.items()}
        )
    return classes, {name: tensor.numpy() for name, tensor in answer.items()}


def _generated(model: GAN, count: int) -> Trial:
    """Noise and labels that go round the classes."""
    (_, latent), _ = model.generator.input_shape
    classes = models.heads(model.discriminator)["label"].shape[-1]
    noise = np.random.default_rng(0).standard_normal((count, latent)).astype(np.float32)
    label = np.arange(count, dtype=np.int32) % classes
    with tf.device(_DEVICE):
        image = np.asarray(model.generator([noise, label], training=False))
    return Trial({"noise": noise, "label": label}, {"image": image})


def _as_files(images: Array) -> Array:
    """uint8 [N, H, W, C] -> PNG bytes [N]."""
    return np.array([encode_png(image) for image in images], dtype=object)


def encode_png(image: Array) -> bytes:
    r"""uint8 [H, W, 1 or 3] -> a PNG file with the same numbers.

    >>> encode_png(np.zeros((8, 8, 1), np.uint8))[:4]
    b'\x89PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _as_examples(files: Mapping[str, Array]) -> Array:
    """Files [N] by input name -> serialized tf.Examples [N]."""
    rows = zip(*files.values(), strict=True)
    return np.array(
        [_encode_example(dict(zip(files, row, strict=True))) for row in rows], dtype=object
    )


def _encode_example(files: Mapping[str, bytes]) -> bytes:
    example = Example()
    for name, content in files.items():
        example.features.feature[name].bytes_list.value.append(content)
    return example.SerializeToString(deterministic=True)
