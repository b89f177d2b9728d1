"""Which normalisations of a model can be taken into the layer before them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers

import models
from training.explaining.graph import behind
from training.explaining.recording import Given, recorded

# The weights that scale a layer's outputs. Layers of these classes themselves: what inherits from
# them may do anything with its weights.
KERNELS = {
    layers.Conv2D: "kernel",
    layers.DepthwiseConv2D: "kernel",
    layers.SeparableConv2D: "pointwise_kernel",
    layers.Conv2DTranspose: "kernel",
    layers.Dense: "kernel",
}


@dataclass(frozen=True)
class Pair:
    """A layer and the normalisation that alone takes what it gives, whenever it is called.

    >>> pair = Pair(layers.Dense(2), layers.BatchNormalization())
    >>> KERNELS[type(pair.layer)]
    'kernel'
    """

    layer: keras.Layer
    normalisation: layers.BatchNormalization


def find_pairs(model: keras.Model, kept: Collection[str] = ()) -> list[Pair]:
    """Every pair of a model that computes in float32; kept: layers to leave as they are, by name or
    path.

    Not by how Keras drew the model, but by what is computed: the model is called once, and its
    tensors followed. So nested and subclassed models, stacks, shared layers and what hands on its
    input (a dropout) are seen through, and what cannot be seen is left as it is.

    >>> image = keras.Input((8, 8, 1))
    >>> x = layers.BatchNormalization(name="bn")(layers.Conv2D(2, 3, name="conv")(image))
    >>> [pair.layer.name for pair in find_pairs(keras.Model(image, x))]
    ['conv']
    >>> find_pairs(keras.Model(image, x), kept=["conv"])
    []
    """
    return [
        pair
        for part in models.parts(model).values()
        if any(type(layer) is layers.BatchNormalization for layer in part._flatten_layers())
        for pair in _pairs_of(part, kept)
    ]


def traced(model: keras.Model) -> tuple[list[Given], list[tf.Tensor]]:
    """What each layer gives in one call of a model that is not trained, and what it answers; of
    layers that are called in a loop or a branch of the graph, nothing.

    >>> model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="dense")])
    >>> given, outputs = traced(model)
    >>> given[0].name, len(outputs)
    ('dense', 1)
    """
    specs = [tf.TensorSpec(each.shape, each.dtype) for each in model.inputs]

    def call(*inputs: tf.Tensor) -> object:
        return model([*inputs] if len(inputs) > 1 else inputs[0], training=False)

    with recorded(model) as given:
        function = tf.function(call, autograph=False).get_concrete_function(*specs)
    return [each for each in given if each.output.graph is function.graph], function.outputs


def _pairs_of(part: keras.Model, kept: Collection[str]) -> Iterator[Pair]:
    given, outputs = traced(part)
    made = [each for each in given if type(each.layer) in KERNELS]
    normalised = [
        each for each in given if type(each.layer) is layers.BatchNormalization and each.taken
    ]
    elsewhere = _seen_elsewhere(made, normalised, outputs)
    for makes in _by_layer(made):
        own = {id(each.output) for each in makes}
        takes = [each for each in normalised if id(each.taken[0]) in own]
        if (
            _is_between_two(makes, takes, normalised)
            and not any(each.output.name in elsewhere for each in makes)
            and not any({each.name, each.path} & {*kept} for each in makes)
            and _is_linear(makes[0].layer)
            and _alone_reads_its_weights(makes)
            and _is_along_last_axis(makes[0], takes[0])
        ):
            yield Pair(makes[0].layer, takes[0].layer)


def _is_between_two(
    makes: Sequence[Given], takes: Sequence[Given], normalised: Sequence[Given]
) -> bool:
    """Whether one normalisation takes all that the layer makes and nothing else, by the statistics
    that it has learnt."""
    if len({id(each.layer) for each in takes}) != 1:
        return False
    normalisation = takes[0].layer
    return (
        sum(each.layer is normalisation for each in normalised) == len(takes)
        and {id(each.taken[0]) for each in takes} == {id(each.output) for each in makes}
        and not any(each.training and normalisation.trainable for each in takes)
    )


def _seen_elsewhere(
    made: Sequence[Given], normalised: Sequence[Given], outputs: Sequence[tf.Tensor]
) -> set[str]:
    """The tensors that the model sees by another way than through a normalisation."""
    stops = {each.output.name for each in normalised}
    weighted = {id(each.output) for each in made}
    places = [
        *outputs,
        *(tensor for each in made for tensor in each.taken if isinstance(tensor, tf.Tensor)),
        *(each.taken[0] for each in normalised if id(each.taken[0]) not in weighted),
    ]
    seen: set[str] = set()

    def is_new(tensor: tf.Tensor) -> bool:
        return tensor.name not in stops and tensor.name not in seen

    for place in filter(is_new, places):
        seen |= {*behind(place, through=is_new)}
    return seen


def _by_layer(given: Sequence[Given]) -> list[list[Given]]:
    calls: dict[int, list[Given]] = {}
    for each in given:
        calls.setdefault(id(each.layer), []).append(each)
    return [*calls.values()]


def _is_linear(layer: keras.Layer) -> bool:
    """In float32, with weights that are what they seem and nothing behind the sum."""
    return (
        layer.activation in (None, keras.activations.linear)
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and isinstance(getattr(layer, KERNELS[type(layer)]), keras.Variable)
        and getattr(layer, "quantization_mode", None) is None
    )


def _alone_reads_its_weights(makes: Sequence[Given]) -> bool:
    """Once in each of its calls: a layer with the same weights, or this one in a loop, would
    get them scaled too."""
    layer, graph = makes[0].layer, makes[0].output.graph
    handle = getattr(layer, KERNELS[type(layer)]).value.handle
    inside = next((within for outside, within in graph.captures if outside is handle), None)
    return inside is not None and len(inside.consumers()) == len(makes)


def _is_along_last_axis(make: Given, take: Given) -> bool:
    normalisation = take.layer
    return (
        normalisation.axis in (-1, make.output.shape.rank - 1)
        and getattr(make.layer, "data_format", "channels_last") == "channels_last"
        and normalisation.compute_dtype == normalisation.variable_dtype == "float32"
    )
