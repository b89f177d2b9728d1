"""The graph behind the signature `explain`: pixels and the classes asked -> heat."""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import keras
import tensorflow as tf

from sluice.wire.contract import CLASS, HEATMAP, SCORE
from training.data.heads import Classes, Head, naming
from training.errors import BadSetting
from training.explaining import heat, looking, scoring
from training.explaining.graph import Tensors
from training.explaining.looking import Place
from training.explaining.recording import Given, recorded
from training.inference import answering, call

LookedAt = dict[str, dict[str, str]]  # by head and image


class Explainer:
    """Says of a model's answer where in its pictures the evidence lies.

    graph: a concrete function of a dict: the model's inputs, and int32 [N] of the class asked of
        each head (-1: the one with the highest score) -> for each head the heat of each image,
        float32 [N, h, w] of 0..1, the class explained, and its probability; docs/contract.md has
        the names.
    looked_at: by head and image, the layer whose maps or tokens were looked at; "" for the pixels
        themselves, and no image that the head does not see.
    Raises UnknownName for a `layer` that the model has not.

    >>> import models
    >>> model = models.build("cnn_functional", (8, 8, 1), 2, filters=2, units=2)
    >>> explainer = Explainer(model, {"label": Classes(("cat", "dog"))}, ["image"])
    >>> explainer.looked_at
    {'label': {'image': 'conv'}}
    >>> answer = explainer.graph({"image": tf.ones((3, 8, 8, 1)), "class": tf.constant([-1, 0, 1])})
    >>> {name: answer[name].shape.as_list() for name in sorted(answer)}
    {'class': [3], 'heatmap': [3, 6, 6], 'score': [3]}
    """

    def __init__(
        self,
        model: keras.Model,
        heads: Mapping[str, Classes],
        images: Collection[str],
        layer: str = "",
    ) -> None:
        """images: the inputs that are pictures. layer: whose maps to look at, by name or path; of
        several inputs, one each with commas between; "": what looking.find finds."""
        self._model, self._heads, self._images = model, heads, list(images)
        self._named = [name.strip() for name in layer.split(",") if name.strip()]
        self.looked_at: LookedAt = {}
        self._asked = _asking(heads)
        self.graph = tf.function(self._explain, autograph=False).get_concrete_function(
            {spec.name: spec for spec in self.specs()}
        )

    def specs(self) -> list[tf.TensorSpec]:
        """The model's inputs, then the class asked of each head."""
        inputs = answering(self._model).inputs
        return [
            *(tf.TensorSpec(each.shape, each.dtype, name=each.name) for each in inputs),
            *(tf.TensorSpec([None], tf.int32, name=name) for name in self._asked.values()),
        ]

    @property
    def asked(self) -> dict[str, int]:
        """The inputs that ask for a class, each with how many there are."""
        return {self._asked[name]: len(head.labels) for name, head in self._heads.items()}

    def _explain(self, inputs: Tensors) -> Tensors:
        rows = tf.shape(next(iter(inputs.values())))[0]
        answer = self._answer({name: _at_least_one(value, rows) for name, value in inputs.items()})
        return {name: value[:rows] for name, value in answer.items()}

    def _answer(self, inputs: Tensors) -> Tensors:
        with recorded(answering(self._model)) as given:
            outputs = call(self._model, inputs, training=False)
        looking.check_named(given, self._named)
        answer: Tensors = {}
        for name, head in self._heads.items():
            answer |= self._explained(name, head, outputs[name], inputs, given)
        return answer

    def _explained(
        self, name: str, head: Classes, output: tf.Tensor, inputs: Tensors, given: list[Given]
    ) -> Tensors:
        scores = scoring.scores(head, output)
        asked = scoring.asked_classes(inputs[self._asked[name]], scores, self._asked[name])
        places = {
            image: place
            for image in self._images
            if (place := looking.find(given, inputs[image], scores, self._named))
        }
        self.looked_at[name] = {image: place.path for image, place in places.items()}
        heats = _heats(places, tf.gather(scores, asked, batch_dims=1))
        unseen = tf.zeros([tf.shape(asked)[0], 1, 1])
        prefix = _prefix(name, self._heads)
        several = len(self._images) > 1
        return {
            **{
                f"{prefix}{HEATMAP}_{image}" if several else f"{prefix}{HEATMAP}": heats.get(
                    image, unseen
                )
                for image in self._images
            },
            prefix + CLASS: asked,
            prefix + SCORE: tf.gather(head.probabilities(output), asked, batch_dims=1),
        }


def explainer_of(
    model: keras.Model, heads: Mapping[str, Head], images: Collection[str], layer: str = ""
) -> Explainer | None:
    """None for a model without a picture or a head that names classes, with an input of that name
    already, or with operations that have no gradient. Raises BadSetting for a layer of such a one.

    >>> import models
    >>> explainer_of(models.build("unet", (16, 16, 1), 2, width=2, depth=1), {}, ["image"]) is None
    True
    """
    classifying = naming(heads)
    taken = {each.name for each in answering(model).inputs} & {*_asking(classifying).values()}
    if classifying and images and not taken:
        with contextlib.suppress(LookupError):
            return Explainer(model, classifying, images, layer)
    if layer:
        raise BadSetting(
            f"explain_layer is {layer!r}, and nothing of this model can be explained: that takes "
            f"a picture, a head that names classes, and operations that have a gradient"
        )
    return None


def looked_at(explainer: Explainer | None) -> LookedAt:
    """What an explainer looks at; nothing where there is none.

    >>> looked_at(None)
    {}
    """
    return explainer.looked_at if explainer else {}


def _at_least_one(value: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """With a row of zeros where there is none: the gradient of oneDNN's pooling ends the process on
    an empty batch (TensorFlow 2.21, MklMaxPoolingGradOp)."""
    missing = [tf.maximum(1 - rows, 0), *tf.unstack(tf.shape(value))[1:]]
    return tf.concat([value, tf.zeros(missing, value.dtype)], axis=0)


def _heats(places: Mapping[str, Place], scores: tf.Tensor) -> Tensors:
    """scores: of the classes explained, [N]."""
    gradients: list[Any] = tf.gradients(scores, [place.tensor for place in places.values()])
    found = {}
    for (image, place), gradient in zip(places.items(), gradients, strict=True):
        maps = tf.cast(place.tensor, tf.float32)
        slope = tf.zeros_like(maps) if gradient is None else tf.cast(gradient, tf.float32)
        found[image] = _heat(place, maps, slope)
    return found


def _heat(place: Place, maps: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    if place.tokens:
        return heat.of_tokens(maps, slope, place.tokens.grid, place.tokens.attentions)
    return heat.grad_cam(maps, slope) if place.is_layer else heat.input_gradient(slope)


def _asking(heads: Mapping[str, Classes]) -> dict[str, str]:
    return {name: _prefix(name, heads) + CLASS for name in heads}


def _prefix(name: str, heads: Mapping[str, Head]) -> str:
    return f"{name}_" if len(heads) > 1 else ""
