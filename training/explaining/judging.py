"""Is an explanation one? Pixels taken away where it is hot, and weights that it must depend on.

Petsiuk et al., "RISE" (arXiv:1806.07421), for the first; Adebayo et al., "Sanity Checks for
Saliency Maps" (arXiv:1810.03292), for the second.
"""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array


def on_the_picture(heat: Array, size: tuple[int, int]) -> Array:
    """Heat [N, h, w] as large as the picture: [N, H, W].

    >>> on_the_picture(np.ones((1, 3, 3), np.float32), (8, 8)).shape
    (1, 8, 8)
    """
    larger: Array = tf.image.resize(heat[..., np.newaxis], size).numpy()
    return larger[..., 0]


def hottest(heat: Array, share: float) -> Array:
    """Where the hottest `share` of each picture's pixels is: bool [N, H, W].

    >>> hottest(np.array([[[0.1, 0.9], [0.2, 0.3]]]), 0.25).tolist()
    [[[False, True], [False, False]]]
    """
    flat = heat.reshape(len(heat), -1)
    order = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1)
    return (order < round(share * flat.shape[1])).reshape(heat.shape)


def without(images: Array, taken: Array) -> Array:
    """Pictures [N, H, W, C] whose pixels of `taken` [N, H, W] are their picture's mean.

    >>> without(np.array([[[[8.0], [0.0]]]]), np.array([[[True, False]]])).ravel().tolist()
    [4.0, 0.0]
    """
    return np.where(taken[..., np.newaxis], images.mean(axis=(1, 2), keepdims=True), images)


def randomised(model: keras.Model, seed: int = 0) -> Iterator[str]:
    """Layer by layer from the answer to the picture: shuffles its weights, and gives its name.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="label")])
    >>> list(randomised(model))
    ['label']
    """
    rng = np.random.default_rng(seed)
    for layer in reversed([each for each in model._flatten_layers() if not each._layers]):
        for variable in layer.weights:
            values = np.asarray(variable).ravel()
            variable.assign(rng.permutation(values).reshape(variable.shape))
        if layer.weights:
            yield layer.name


def reinitialise(model: keras.Model, seed: int = 0) -> None:
    """All weights as they might have been before training.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> before = model.get_weights()[0]
    >>> reinitialise(model)
    >>> bool((before == model.get_weights()[0]).any())
    False
    """
    keras.utils.set_random_seed(seed)
    model.set_weights(keras.models.clone_model(model).get_weights())


def rank_correlation(one: Array, other: Array, where: Array | None = None) -> float:
    """Spearman's, of heat [N, h, w], the mean over the pictures; 0 for one that is flat.

    where: the places that count, bool [N, h, w]; None: all.

    >>> heat = np.array([[[0.1, 0.9], [0.2, 0.3]]])
    >>> round(rank_correlation(heat, heat**2), 6), rank_correlation(heat, heat * 0)
    (1.0, 0.0)
    >>> round(rank_correlation(heat, 1 - heat, np.array([[[True, True], [False, True]]])), 6)
    -1.0
    """
    counted = np.ones(one.shape, bool) if where is None else where
    found = []
    for first, second, places in zip(one, other, counted, strict=True):
        first, second = _ranks(first[places]), _ranks(second[places])
        length = float(np.linalg.norm(first) * np.linalg.norm(second))
        found.append(float(first @ second) / length if length else 0.0)
    return float(np.mean(found))


def off_the_ground(images: Array, size: tuple[int, int]) -> Array:
    """Where pictures [N, H, W, C] of a thing on black show the thing: bool [N, h, w].

    >>> off_the_ground(np.array([[[[0], [9]]]]), (1, 4)).tolist()
    [[[False, True, True, True]]]
    """
    shown: Array = np.any(tf.image.resize(images, size, antialias=True).numpy() > 0, axis=-1)
    return shown


def _ranks(heat: Array) -> Array:
    """About their mean; of places that are equally hot, the mean of theirs."""
    _, which, counts = np.unique(heat.ravel(), return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[which]
    centred: Array = ranks - ranks.mean()
    return centred
