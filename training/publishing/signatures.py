"""A Keras model -> the graphs of the contract's signatures (docs/contract.md)."""

from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any

import keras
import tensorflow as tf

from models.adversarial import GAN
from sluice.wire.contract import (
    CLASSES_SUFFIX,
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    ENCODED_SIGNATURE,
    EXPLAIN_ENCODED_SIGNATURE,
    EXPLAIN_SIGNATURE,
    LABELLED_SIGNATURE,
    NOVELTY,
    PIXELS_SIGNATURE,
    SCORES_SUFFIX,
)
from training.data.heads import Classes, Head, naming
from training.decoding import decode_images
from training.explaining.explainer import explainer_of
from training.inference import answering, call
from training.novelty.features import features
from training.novelty.spread import Spread, distance
from training.publishing import batching

GENERATE = "generate"  # a GAN's
TOP = 5  # classes named in an answer, where the head has that many

ImageShapes = Mapping[str, tuple[int, int, int]]

_DECODABLE_CHANNELS = (1, 3)
_HALF = (tf.bfloat16, tf.float16)


class SignatureGraphs:
    """The graph behind each signature of a model, by what its inputs and heads are."""

    def __init__(
        self,
        model: keras.Model,
        heads: Mapping[str, Head],
        images: ImageShapes | None = None,
        explain_layer: str = "",
        spread: Spread | None = None,
        batch_encoded: int = 0,
    ) -> None:
        """images: of the inputs that files are decoded for, [H, W, C]; None: all that look it.
        explain_layer: whose maps `explain` looks at; "": a last convolution's, or tokens.
        spread: of the features in training, in units of the threshold; None: `novelty` is left out.
        batch_encoded: rows of several calls of `encoded` that the network takes at once; 0: a
        call's own alone.
        """
        self._model, self._inputs = model, answering(model).inputs
        self.images = image_inputs(self._inputs) if images is None else images
        self._naming = naming(heads)
        self._batch_encoded = batch_encoded
        self.explainer = explainer_of(model, heads, self.images, explain_layer)
        # Variables, for TensorFlow Serving optimizes constants, and keeps copies.
        self.spread = {
            name: tf.Variable(array, trainable=False)
            for name, array in (spread.arrays() if spread else {}).items()
        }

    def by_name(self) -> dict[str, Any]:
        """One traced `tf.function` for each, as `tf.saved_model.save` takes them."""
        specs = [_spec(tensor) for tensor in self._inputs]
        found = {DEFAULT_SIGNATURE: _traced(self._predict, specs)}
        if self.images:
            if as_bytes := self._as_bytes(specs):
                found[PIXELS_SIGNATURE] = _traced(self._predict_pixels, as_bytes)
            found[ENCODED_SIGNATURE] = _traced(self._predict_encoded, self._as_files(specs))
        elif self._naming:
            found[LABELLED_SIGNATURE] = _traced(self._predict_labelled, specs)
        if self._naming and len(self.images) == len(specs):
            found[CLASSIFY_SIGNATURE] = _traced(self._classify, [_bytes_spec("inputs")])
        if self.explainer:
            found |= self._explaining(self.explainer.specs())
        if isinstance(self._model, GAN):
            drawing = [_spec(tensor) for tensor in self._model.generator.inputs]
            found[GENERATE] = _traced(self._generate, drawing)
        return found

    def _explaining(self, specs: list[tf.TensorSpec]) -> dict[str, Any]:
        return {
            EXPLAIN_SIGNATURE: _traced(self._explain, specs),
            EXPLAIN_ENCODED_SIGNATURE: _traced(self._explain_encoded, self._as_files(specs)),
        }

    def _as_bytes(self, specs: list[tf.TensorSpec]) -> list[tf.TensorSpec]:
        """[] of a model that takes all its pictures as uint8 already."""
        narrow = [_uint8_spec(spec) if spec.name in self.images else spec for spec in specs]
        return narrow if narrow != specs else []

    def _as_files(self, specs: list[tf.TensorSpec]) -> list[tf.TensorSpec]:
        return [_bytes_spec(spec.name) if spec.name in self.images else spec for spec in specs]

    def _predict(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return _in_float32(call(self._model, inputs, training=False))

    def _predict_pixels(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._predict(**self._as_taken(inputs))

    def _predict_encoded(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = self._decode(inputs)
        if not self._batch_encoded:
            return self._encoded_answer(**pixels)
        return batching.joined(
            self._encoded_answer, pixels, self._batch_encoded, name=ENCODED_SIGNATURE
        )

    def _encoded_answer(self, **pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = self._predict_labelled(**pixels)
        if self.spread:
            found = features([answer[name] for name in self._naming], pixels.values())
            answer[NOVELTY] = distance(found, self.spread)
        return answer

    def _predict_labelled(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = {**self._predict(**inputs)}
        for name, head in self._naming.items():
            classes, scores = _best(answer[name], head)
            answer |= {f"{name}{CLASSES_SUFFIX}": classes, f"{name}{SCORES_SUFFIX}": scores}
        return answer

    def _classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """TF Serving's Classify: tf.Examples with each image's bytes under the input's name."""
        features = {name: tf.io.FixedLenFeature([], tf.string) for name in self.images}
        outputs = self._predict(**self._decode(tf.io.parse_example(inputs, features)))
        name, head = next(iter(self._naming.items()))
        classes, scores = _best(outputs[name], head)
        return {"classes": classes, "scores": scores}

    def _explain(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        assert self.explainer
        answer: dict[str, tf.Tensor] = self.explainer.graph(
            {input_name(argument): value for argument, value in inputs.items()}
        )
        return answer

    def _explain_encoded(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._explain(**self._decode(inputs))

    def _generate(self, noise: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        """Noise [N, latent] and class numbers [N] -> images [N, H, W, C] of 0..255."""
        return _in_float32({"image": self._model.generator([noise, label], training=False)})

    def _decode(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Images out of their files; the other inputs as they are."""
        return self._as_taken(
            {
                name: decode_images(value, self.images[name]) if name in self.images else value
                for name, value in inputs.items()
            }
        )

    def _as_taken(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Images in the dtype that the model takes; the other inputs as they are."""
        dtypes = {tensor.name: tensor.dtype for tensor in self._inputs}
        return {
            name: tf.cast(value, dtypes[name]) if name in self.images else value
            for name, value in inputs.items()
        }


def image_inputs(inputs: Sequence[keras.KerasTensor]) -> ImageShapes:
    """[H, W, C] by name, of those inputs that an image file can be brought to.

    >>> inputs = [keras.Input((8, 8, 1), name="image"), keras.Input((3,), name="sizes")]
    >>> image_inputs(inputs)
    {'image': (8, 8, 1)}
    """
    return {tensor.name: tuple(tensor.shape[1:]) for tensor in inputs if _is_image(tensor)}


def _is_image(tensor: keras.KerasTensor) -> bool:
    """[N, H, W, C] with a size and channels that a file can be brought to."""
    return (
        len(tensor.shape) == 4
        and None not in tensor.shape[1:]
        and tensor.shape[-1] in _DECODABLE_CHANNELS
    )


def _spec(tensor: keras.KerasTensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)


def _uint8_spec(spec: tf.TensorSpec) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, tf.uint8, name=spec.name)


def _bytes_spec(name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.string, name=name)


def _traced(function: Any, specs: list[tf.TensorSpec]) -> Any:
    arguments = [tf.TensorSpec(each.shape, each.dtype, _argument(each.name)) for each in specs]
    return tf.function(function).get_concrete_function(**{each.name: each for each in arguments})


def _argument(name: str) -> str:
    """As TensorFlow takes an input: no word of Python's own, which `class` is."""
    return f"{name}_" if iskeyword(name) else name


def input_name(argument: str) -> str:
    """What the input is called whose argument this is.

    >>> input_name("class_"), input_name("image_")
    ('class', 'image_')
    """
    name = argument.removesuffix("_")
    return name if iskeyword(name) else argument


def _in_float32(outputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Whatever it is computed in, clients get the same dtypes."""
    return {
        name: tf.cast(output, tf.float32) if output.dtype in _HALF else output
        for name, output in outputs.items()
    }


def _best(output: tf.Tensor, head: Classes) -> tuple[tf.Tensor, tf.Tensor]:
    """A head's output -> labels [N, k] and probabilities [N, k], best first."""
    top = tf.math.top_k(head.probabilities(output), k=min(TOP, len(head.labels)))
    return tf.gather(tf.constant(head.labels), top.indices), top.values
