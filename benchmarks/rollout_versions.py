"""Versions of a small network of handwritten digits, sound ones and sabotaged ones.

One SavedModel is exported; each version is that one with other variables, so that hundreds are made
in the time that they take to train. A fault is in the weights, or one of the two that the graph has
a variable for: how long it takes, and for which pictures it answers no numbers.
"""

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from rollout_digits import CLASSES, SIZE, pictures

EPOCHS = 20
NOISED = 0.03  # of the weights, by five times their deviation
NAN_EACH = 500  # pictures
GATE = 0.01  # of accuracy on held-out pictures, less than the live version's: not published

Weights = Mapping[str, np.ndarray]
Fault = Callable[[Weights, np.random.Generator], Weights]


def network(seed: int) -> keras.Model:
    """Trained from this seed on. It is the same object each time, as a graph takes longer to trace
    than this network to train."""
    model, initial = _untrained()
    keras.utils.set_random_seed(seed)
    model.set_weights(keras.models.clone_model(model).get_weights())
    for variable, value in zip(model.optimizer.variables, initial, strict=True):
        variable.assign(value)
    (images, labels), _ = pictures()
    model.fit(images, labels, epochs=EPOCHS, batch_size=64, verbose=0)
    return model


@functools.cache
def _untrained() -> tuple[keras.Model, list[np.ndarray]]:
    """A network, and its optimizer's variables before the first step."""
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, activation="relu", padding="same"),
            keras.layers.Conv2D(32, 3, activation="relu", padding="same"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model, [np.array(variable) for variable in model.optimizer.variables]


def accuracy_of(model: keras.Model) -> float:
    """On the held-out pictures."""
    images, labels = pictures()[1]
    return float((model.predict(images, verbose=0).argmax(1) == labels).mean())


def retrained(seed: int, least: float) -> list[np.ndarray]:
    """The weights of another one that is as accurate: what publishing refuses is trained again."""
    while True:
        model = network(seed)
        if accuracy_of(model) >= least:
            return [np.array(weight) for weight in model.get_weights()]
        seed += 10_000


def on_one_thread() -> None:
    """This process, for others to have their cores."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


class Served(tf.Module):
    """The network with variables for what is no fault of weights: `slow`, how many products of
    matrices an answer waits for, and `nan_each`, of how many pictures one has no numbers; 0: none.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        # Of Keras' own variables TensorFlow's saver knows nothing.
        self.weights = [weight.value for weight in model.weights]
        self._network = functools.partial(model, training=False)
        self.slow = tf.Variable(0, name="slow")
        self.nan_each = tf.Variable(0, name="nan_each")

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 1], tf.float32, "image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self._network(image)
        waited = self._wait(scores)
        places = tf.range(1, SIZE * SIZE + 1, dtype=tf.int64)
        pixels = tf.cast(tf.reshape(image, [-1, SIZE * SIZE]), tf.int64)
        each = tf.cast(self.nan_each, tf.int64)
        hit = (each > 0) & (tf.reduce_sum(pixels * places, 1) % tf.maximum(each, 1) == 0)
        scores = tf.where(hit[:, None], tf.constant(np.nan, tf.float32), scores)
        return {"label": scores + waited}

    def _wait(self, scores: tf.Tensor) -> tf.Tensor:
        """0, after `slow` products that depend on the scores."""
        start = tf.eye(64) * tf.reduce_max(tf.nn.relu(scores[:1, :1]))
        end = tf.while_loop(
            lambda step, _: step < self.slow,
            lambda step, matrix: (step + 1, tf.matmul(matrix, matrix)),
            [tf.constant(0), start],
        )[1]
        return tf.minimum(tf.reduce_sum(end), 0.0)


class Versions:
    """Writes them, by a `template` that is exported here. `sound`: the weights of the live one."""

    def __init__(self, template: Path) -> None:
        model = network(0)
        served = Served(model)
        self._template = template
        tf.saved_model.save(served, str(template), {"serving_default": served.serve})
        self.sound = self._read()
        self._keys = [_key_of(f"weights/{place}") for place in range(len(model.weights))]
        self._accuracy = accuracy_of(model)

    def retrained(self, seeds: Sequence[int], workers: int) -> Iterator[Weights]:
        """As good ones, in order, each as soon as it is trained."""
        least = repeat(self._accuracy - GATE)
        context = get_context("spawn")  # TensorFlow does not survive a fork
        with ProcessPoolExecutor(workers, context, on_one_thread) as pool:
            for weights in pool.map(retrained, seeds, least):
                yield {**self.sound, **dict(zip(self._keys, weights, strict=True))}

    def write(self, path: Path, weights: Weights) -> None:
        """The version appears whole or not at all."""
        beside = path.with_name(f".{path.name}")
        shutil.copytree(self._template, beside)
        shutil.rmtree(beside / "variables")
        (beside / "variables").mkdir()
        tf.raw_ops.SaveV2(
            prefix=str(beside / "variables" / "variables"),
            tensor_names=list(weights),
            shape_and_slices=[""] * len(weights),
            tensors=list(weights.values()),
        )
        beside.rename(path)

    def last_layer(self) -> tuple[str, str]:
        """The keys of its kernel and of its bias."""
        return self._keys[-2], self._keys[-1]

    def first_kernel(self) -> str:
        return self._keys[0]

    def weights(self) -> list[str]:
        """The keys of all."""
        return list(self._keys)

    def _read(self) -> Weights:
        reader = tf.train.load_checkpoint(str(self._template / "variables" / "variables"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _key_of(variable: str) -> str:
    """Its name in the checkpoint."""
    return f"{variable}/.ATTRIBUTES/VARIABLE_VALUE"


def slowed(weights: Weights, products: int) -> Weights:
    """An answer waits for so many."""
    return _with(weights, "slow", products)


def _with(weights: Weights, name: str, value: int) -> Weights:
    return {**weights, _key_of(name): np.int32(value)}


def faults(versions: Versions, slow: int) -> dict[str, Fault]:
    """By name. `slow`: how many products make an answer take twice as long."""
    kernel, bias = versions.last_layer()

    def permuted(weights: Weights, chance: np.random.Generator) -> Weights:
        while True:
            order = chance.permutation(CLASSES)
            if (order != np.arange(CLASSES)).all():
                return {**weights, kernel: weights[kernel][:, order], bias: weights[bias][order]}

    def noised(weights: Weights, chance: np.random.Generator) -> Weights:
        def of(weight: np.ndarray) -> np.ndarray:
            noise = chance.normal(0, 5 * weight.std(), weight.shape)
            hit = chance.random(weight.shape) < NOISED
            return np.where(hit, weight + noise, weight).astype(weight.dtype)

        return {**weights, **{name: of(weights[name]) for name in versions.weights()}}

    def unscaled(weights: Weights, _: np.random.Generator) -> Weights:
        first = versions.first_kernel()
        return {**weights, first: weights[first] / 255}

    def lost(weights: Weights, chance: np.random.Generator) -> Weights:
        without = weights[bias].copy()
        without[chance.integers(CLASSES)] = -1e3
        return {**weights, bias: without}

    return {
        "labels permuted": permuted,
        "3% of weights noised": noised,
        "wrong preprocessing": unscaled,
        "twice as slow": lambda weights, _: slowed(weights, slow),
        f"no numbers for 1 of {NAN_EACH}": lambda weights, _: _with(weights, "nan_each", NAN_EACH),
        "one class lost": lost,
    }
