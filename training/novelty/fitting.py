"""A trained model and its images -> the statistics that are published with it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.contract import NOVELTY
from sluice.wire.tensors import Array
from training.data.dataset import Arrays, Dataset, spaced
from training.data.heads import Head, naming
from training.inference import answering, as_dtype, call
from training.novelty.features import features
from training.novelty.spread import Spread

QUANTILE = 0.995  # of the held-out images lies below the threshold
LEAST = 100  # images, of either kind: of fewer the quantile would be a guess
MOST = 4096
LEFT_OUT = "it was left out"
_BATCH = 256

Facts = dict[str, float | int | str]  # of metrics.json


@dataclass(frozen=True)
class Novelty:
    """spread: in units of the threshold. facts: how it was come by.

    >>> Novelty(Spread.of(np.eye(3)), {"images": 3}).facts
    {'images': 3}
    """

    spread: Spread
    facts: Facts

    def scores(self, model: keras.Model, heads: Mapping[str, Head], inputs: Arrays) -> Array:
        """float32 [N], of images [N, H, W, C] by input name: above 1 is unlike the training's."""
        found = features_of(model, heads, inputs)
        if found is None:
            raise ValueError("the model has no features")
        return self.spread.distances(found)


def fit(
    model: keras.Model, heads: Mapping[str, Head], seen: Arrays, held_out: Arrays
) -> Novelty | str:
    """What `seen` was like, and a threshold that QUANTILE of `held_out` keep; or why there is none.

    seen, held_out: by input name, [N, ...], no image in both.

    >>> import models
    >>> from training.data.heads import Classes
    >>> model = models.build("cnn_functional", (8, 8, 1), 2, filters=4, units=2)
    >>> images = np.random.default_rng(0).integers(256, size=(300, 8, 8, 1), dtype=np.uint8)
    >>> heads = {"label": Classes(("cat", "dog"))}
    >>> novelty = fit(model, heads, {"image": images[:200]}, {"image": images[200:]})
    >>> float(novelty.scores(model, heads, {"image": images[200:]}).max().round(3))
    1.0
    >>> fit(model, heads, {"image": images[:200]}, {"image": images[:20]})
    '20 images held out are too few for a threshold, of which 100 are needed'
    """
    if refusal := _refusal(model, heads, seen, held_out):
        return refusal
    known = features_of(model, heads, _some(seen))
    if known is None:
        return "nothing that it has learnt lies before its last layer"
    spread = Spread.of(known)
    distances = np.sort(Novelty(spread, {}).scores(model, heads, _some(held_out)))
    place = min(len(distances), math.ceil((len(distances) + 1) * QUANTILE))
    threshold = float(distances[place - 1])
    if not 0 < threshold < math.inf:
        return f"the images held out lie at a distance of {threshold}"
    facts: Facts = {
        "features": known.shape[1],
        "images": len(known),
        "held_out": len(distances),
        "quantile": QUANTILE,
        "threshold": threshold,
    }
    return Novelty(spread.in_units_of(threshold), facts)


def fit_trained(model: keras.Model, dataset: Dataset) -> Novelty | str:
    """`fit` on what the model was trained on and watched by, and its false alarms on the test's.

    >>> from pathlib import Path
    >>> import models
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> model = models.build("mlp", (8, 8, 1), 10, units=(16,))
    >>> dataset = load(RECIPES["digits"], None, Path())
    >>> fit_trained(model, dataset).facts["test"]
    360
    """
    heads = dataset.heads
    found = fit(model, heads, dataset.train.inputs, dataset.validation.inputs)
    if isinstance(found, str):
        return found
    scores = found.scores(model, heads, _some(dataset.test.inputs))
    alarms: Facts = {"test": len(scores), "false_alarms": float((scores > 1).mean())}
    return Novelty(found.spread, {**found.facts, **alarms})


def fit_samples(model: keras.Model, heads: Mapping[str, Head], samples: Arrays) -> Novelty | str:
    """`fit` on samples of which nobody says what they are: every other one is held out.

    >>> import models
    >>> from training.data.heads import Classes
    >>> model = models.build("mlp", (8, 8, 1), 2, units=(4,))
    >>> fit_samples(model, {"label": Classes(("cat", "dog"))}, {"image": np.zeros((16, 8, 8, 1))})
    '8 images are too few for a threshold, of which 100 are needed'
    """
    seen = {name: array[::2] for name, array in samples.items()}
    held_out = {name: array[1::2] for name, array in samples.items()}
    return fit(model, heads, seen, held_out)


def features_of(model: keras.Model, heads: Mapping[str, Head], inputs: Arrays) -> Array | None:
    """[N, d] of images [N, H, W, C] by input name; None where the model has none.

    >>> import models
    >>> from training.data.heads import Classes
    >>> model = models.build("cnn_functional", (8, 8, 1), 2, filters=4, units=2)
    >>> heads = {"label": Classes(("cat", "dog"))}
    >>> features_of(model, heads, {"image": np.zeros((3, 8, 8, 1))}).shape
    (3, 8)
    """
    specs = {
        tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
        for tensor in answering(model).inputs
    }

    def look(batch: dict[str, tf.Tensor]) -> tf.Tensor | None:
        outputs = call(model, batch, training=False)
        return features([outputs[name] for name in naming(heads)], batch.values())

    looking = tf.function(look, autograph=False).get_concrete_function(specs)
    if looking.structured_outputs is None:
        return None
    rows = len(next(iter(inputs.values())))
    batches = [
        looking(
            {
                name: tf.constant(as_dtype(inputs[name][start : start + _BATCH], spec.dtype.name))
                for name, spec in specs.items()
            }
        )
        for start in range(0, rows, _BATCH)
    ]
    return np.concatenate([batch.numpy() for batch in batches])


def facts_of(novelty: Novelty | str) -> Facts:
    """What metrics.json says of it.

    >>> facts_of(LEFT_OUT)
    {'absent': 'it was left out'}
    """
    return {"absent": novelty} if isinstance(novelty, str) else novelty.facts


def _refusal(
    model: keras.Model, heads: Mapping[str, Head], seen: Arrays, held_out: Arrays
) -> str | None:
    if not naming(heads):
        return "no head names classes"
    if NOVELTY in {*heads, *(tensor.name for tensor in answering(model).inputs)}:
        return f"the model has a {NOVELTY} of its own"
    for images, what in ((seen, "images"), (held_out, "images held out")):
        count = len(next(iter(images.values())))
        if count < LEAST:
            return f"{count} {what} are too few for a threshold, of which {LEAST} are needed"
    return None


def _some(inputs: Arrays) -> Arrays:
    kept = spaced(len(next(iter(inputs.values()))), MOST)
    return {name: array[kept] for name, array in inputs.items()}
