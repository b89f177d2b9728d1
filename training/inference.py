"""Calling a model by names: tensors by input name in, tensors by head name out."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

import models
from models.adversarial import GAN
from sluice.wire.tensors import Array
from training.data.dataset import Arrays

_BATCH = 256


def call(
    model: keras.Model, inputs: Mapping[str, tf.Tensor], *, training: bool
) -> dict[str, tf.Tensor]:
    """Every head's outputs [N, ...] on pixels of 0..255, float32 [N, H, W, C], by input name.

    >>> model = models.build("mlp", (8, 8, 1), 3, units=(4,))
    >>> call(model, {"image": tf.zeros((5, 8, 8, 1))}, training=False)["label"].shape
    TensorShape([5, 3])
    """
    model = answering(model)
    values = [inputs[tensor.name] for tensor in model.inputs]
    outputs = model(values if len(values) > 1 else values[0], training=training)
    if isinstance(outputs, dict):
        return outputs
    flat = outputs if isinstance(outputs, list | tuple) else [outputs]
    return dict(zip(models.heads(model), flat, strict=True))


def answering(model: keras.Model) -> keras.Model:
    """The model that is asked about images: of a GAN, the discriminator.

    >>> answering(models.build("gan", (8, 8, 1), width=4)).name
    'discriminator'
    """
    return model.discriminator if isinstance(model, GAN) else model


def predict(model: keras.Model, inputs: Arrays) -> dict[str, Array]:
    """Every head's outputs [N, ...] on any number of images, [N, H, W, C], by input name.

    >>> model = models.build("mlp", (8, 8, 1), 3, units=(4,))
    >>> {
    ...     name: scores.shape
    ...     for name, scores in predict(model, {"image": np.zeros((5, 8, 8, 1))}).items()
    ... }
    {'label': (5, 3)}
    """
    compiled = tf.function(lambda batch: call(model, batch, training=False), reduce_retracing=True)
    rows = len(next(iter(inputs.values())))
    dtypes = {tensor.name: tensor.dtype for tensor in answering(model).inputs}
    answers = [
        compiled(
            {
                name: tf.constant(as_dtype(array[start : start + _BATCH], dtypes[name]))
                for name, array in inputs.items()
            }
        )
        for start in range(0, rows, _BATCH)
    ]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def as_dtype(array: Array, dtype: str) -> Array:
    """The array as an input of a Keras dtype takes it; strings stay the bytes that they are.

    >>> as_dtype(np.zeros((1, 8), np.uint8), "float32").dtype
    dtype('float32')
    """
    return array if dtype == "string" else array.astype(dtype)
