"""A Keras model -> the graphs of the contract's signatures (docs/contract.md)."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from models.adversarial import GAN
from training.data.heads import Head, naming
from training.decoding import decode_images
from training.inference import answering, call

TOP = 5  # classes named in an answer, where the head has that many
DECODABLE_CHANNELS = (1, 3)

Tensors = dict[str, Any]
Signatures = dict[str, Any]


class Servable:
    """The graphs behind the signatures."""

    def __init__(self, model: keras.Model, heads: Mapping[str, Head]) -> None:
        self.model, self.asked = model, answering(model)
        self.images = {
            tensor.name: tuple(tensor.shape[1:]) for tensor in self.asked.inputs if is_image(tensor)
        }
        self.labels = {name: tf.constant(head.labels) for name, head in naming(heads).items()}

    def signatures(self) -> Signatures:
        specs = [
            tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
            for tensor in self.asked.inputs
        ]
        found = {"serving_default": concrete(self.predict, specs)}
        if self.images:
            found["encoded"] = concrete(
                self.predict_encoded,
                [bytes_spec(spec.name) if spec.name in self.images else spec for spec in specs],
            )
        if self.labels and len(self.images) == len(specs):
            found["classify"] = concrete(self.classify, [bytes_spec("inputs")])
        if isinstance(self.model, GAN):
            found["generate"] = concrete(
                self.generate,
                [
                    tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
                    for tensor in self.model.generator.inputs
                ],
            )
        return found

    def predict(self, **inputs: tf.Tensor) -> Tensors:
        return call(self.model, inputs, training=False)

    def predict_encoded(self, **inputs: tf.Tensor) -> Tensors:
        outputs = self.predict(**self.decode(inputs))
        for name, labels in self.labels.items():
            classes, scores = best(outputs[name], labels)
            outputs = {**outputs, f"{name}_classes": classes, f"{name}_scores": scores}
        return outputs

    def classify(self, inputs: tf.Tensor) -> Tensors:
        """TF Serving's Classify: tf.Examples with each image's bytes under the input's name."""
        features = {name: tf.io.FixedLenFeature([], tf.string) for name in self.images}
        outputs = self.predict(**self.decode(tf.io.parse_example(inputs, features)))
        head, labels = next(iter(self.labels.items()))
        classes, scores = best(outputs[head], labels)
        return {"classes": classes, "scores": scores}

    def generate(self, noise: tf.Tensor, label: tf.Tensor) -> Tensors:
        """A GAN's own: noise [N, latent] and class numbers [N] -> images [N, H, W, C] of 0..255."""
        return {"image": self.model.generator([noise, label], training=False)}

    def decode(self, inputs: Mapping[str, tf.Tensor]) -> Tensors:
        """Images out of their bytes; the other inputs as they are."""
        return {
            name: decode_images(value, self.images[name]) if name in self.images else value
            for name, value in inputs.items()
        }


def is_image(tensor: keras.KerasTensor) -> bool:
    """[N, H, W, C] with a size and channels that a file can be brought to."""
    return (
        len(tensor.shape) == 4
        and None not in tensor.shape[1:]
        and tensor.shape[-1] in DECODABLE_CHANNELS
    )


def bytes_spec(name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.string, name=name)


def concrete(function: Any, specs: list[tf.TensorSpec]) -> Any:
    return tf.function(function).get_concrete_function(**{spec.name: spec for spec in specs})


def best(scores: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores [N, classes] -> labels [N, k] and scores [N, k], best first."""
    top = tf.math.top_k(scores, k=min(TOP, labels.shape[0]))
    return tf.gather(labels, top.indices), top.values
