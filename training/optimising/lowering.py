"""Which layers of a model may compute in half precision."""

from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf
from keras import layers

import models
from training.explaining.graph import behind
from training.explaining.recording import Given
from training.optimising.pairs import traced

_WHOLE = "float32"
# What is made of pixels before anything is learnt of them, and the exponentials.
_KEPT = (layers.Normalization, layers.Rescaling, layers.Softmax)


def lowered_layers(model: keras.Model) -> list[keras.Layer]:
    """All but those that stay in float32: what prepares the pixels, and each output's last layer
    with weights and what follows it, so the scores and what is told by them.

    A model in another model is not among them, as its layers say for themselves what they compute
    in. None at all where none with weights would be: the others alone would save nothing.

    >>> image = keras.Input((8, 8, 1))
    >>> x = layers.Conv2D(2, 3, name="conv")(layers.Rescaling(1 / 255)(image))
    >>> x = layers.Dense(2, activation="softmax")(layers.Flatten(name="flatten")(x))
    >>> [layer.name for layer in lowered_layers(keras.Model(image, x))]
    ['conv', 'flatten']
    """
    found = [layer for part in models.parts(model).values() for layer in _lowered(part)]
    return found if any(layer.weights for layer in found) else []


def _lowered(part: keras.Model) -> Iterator[keras.Layer]:
    given, outputs = traced(part)
    kept = {id(each.layer) for each in (*_preparing(given), *_answering(given, outputs))}
    for layer in part._flatten_layers():
        if (
            id(layer) not in kept
            and not isinstance(layer, (keras.Model, layers.InputLayer, *_KEPT))
            and isinstance(layer.dtype_policy, keras.DTypePolicy)
            and layer.dtype_policy.quantization_mode is None  # what its integers mean is in there
            and layer.compute_dtype == layer.variable_dtype == _WHOLE
        ):
            yield layer


def _preparing(given: Sequence[Given]) -> Iterator[Given]:
    """What has no weights, and none before it."""
    for each in given:
        if not each.layer.weights and not any(
            tensor.dtype == tf.resource for tensor in behind(each.output).values()
        ):
            yield each


def _answering(given: Sequence[Given], outputs: Sequence[tf.Tensor]) -> Iterator[Given]:
    """On each way back from the outputs, the first with weights and all before that."""
    weighted = {each.output.name for each in given if _is_weighted(each)}
    tail: set[str] = set()
    for output in outputs:
        last = behind(output, through=lambda tensor: tensor.name not in weighted)
        tail |= {*last, *(source.name for each in last.values() for source in each.op.inputs)}
    for each in given:
        if each.output.name in tail:
            yield each


def _is_weighted(each: Given) -> bool:
    return bool(each.layer.weights) and not isinstance(each.layer, keras.Model)
