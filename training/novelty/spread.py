"""Where a model's features lay in training: their mean and their directions, frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from sluice.wire.tensors import Array

RANK = 256  # directions that are kept one by one: of 4,096 features 4 MB
_SOLVED_WHOLE = 1024  # features; of more, all directions would take a minute
_LEAST_DEVIATION = 0.01  # of a feature, of their mean: one that never changed says little
_FLOOR = 1e-3  # of a direction's variance, of their mean


@dataclass(frozen=True)
class Spread:
    """Features [N, d] -> distance [N] from where those of training lay.

    Mahalanobis's distance with one mean and one covariance for all classes (Kamoi and Kobayashi,
    arXiv:2003.00402), of which the largest `r` directions are kept and the rest is taken as equally
    wide (Tipping and Bishop's probabilistic PCA).

    Both are folded into as few operations as they can be, for each costs a lone request some
    microseconds:

    directions: [d, r], each as long as it counts.
    origin: [r], where the mean of training lies along them; None where there is a rest.
    weights, shift: [d], which bring a feature to its distance from that mean, as far as the rest
        counts; None where all directions are kept.

    >>> rng = np.random.default_rng(0)
    >>> spread = Spread.of(rng.normal(size=(1000, 3)) * [1, 10, 100])
    >>> spread.distances(np.array([[0, 0, 0], [4, 0, 0], [0, 0, 400]])).round().tolist()
    [0.0, 4.0, 4.0]
    """

    directions: Array
    origin: Array | None = None
    weights: Array | None = None
    shift: Array | None = None

    @classmethod
    def of(cls, features: Array) -> "Spread":
        """Of training's features [n, d], n of 2 and more."""
        features = features.astype(np.float64)
        deviation = features.std(axis=0)
        scale = np.maximum(deviation, _LEAST_DEVIATION * deviation.mean() or 1.0)
        examples, width = features.shape
        rank = min(RANK, width, max(1, examples // 2))
        solver = "covariance_eigh" if width <= _SOLVED_WHOLE else "randomized"
        found = PCA(rank, svd_solver=solver, random_state=0).fit(features / scale)
        floor = _FLOOR * found.explained_variance_.mean() or 1.0
        variances = found.explained_variance_ + floor
        centre, along = features.mean(axis=0), found.components_.T
        if rank == width:
            directions = along / scale[:, np.newaxis] / np.sqrt(variances)
            return cls(_narrow(directions), origin=_narrow(centre @ directions))
        rest = found.noise_variance_ + floor
        weights = 1 / scale / np.sqrt(rest)
        # What the rest counts too much along the directions.
        directions = along * np.sqrt(np.maximum(0, 1 - rest / variances))
        return cls(_narrow(directions), weights=_narrow(weights), shift=_narrow(centre * weights))

    def in_units_of(self, threshold: float) -> "Spread":
        """The same, whose distance 1 is this one's `threshold`.

        >>> spread = Spread.of(np.random.default_rng(0).normal(size=(1000, 1)))
        >>> spread.in_units_of(3).distances(np.array([[6]])).round().tolist()
        [2.0]
        """
        if self.origin is not None:
            return Spread(self.directions / threshold, origin=self.origin / threshold)
        assert self.weights is not None and self.shift is not None
        return replace(self, weights=self.weights / threshold, shift=self.shift / threshold)

    def arrays(self) -> Mapping[str, Array]:
        """The statistics by name, float32.

        >>> [*Spread.of(np.random.default_rng(0).normal(size=(9, 2))).arrays()]
        ['directions', 'origin']
        """
        return {name: array for name, array in vars(self).items() if array is not None}

    def distances(self, features: Array) -> Array:
        """float32 [N], of features [N, d]."""
        result: Array = distance(features.astype(np.float32), self.arrays()).numpy()
        return result


def distance(features: tf.Tensor, spread: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """float32 [N], of features [N, d] and what `Spread.arrays` gives, as arrays or variables.

    >>> spread = Spread.of(np.random.default_rng(0).normal(size=(1000, 3)))
    >>> distance(tf.constant([[0.0, 0.0, 9.0]]), spread.arrays()).numpy().round().tolist()
    [9.0]
    """
    if "origin" in spread:
        along = tf.matmul(features, spread["directions"]) - spread["origin"]  # [N, r]
        return tf.sqrt(_length(along))
    from_mean = features * spread["weights"] - spread["shift"]  # [N, d]
    along = tf.matmul(from_mean, spread["directions"])
    return tf.sqrt(tf.nn.relu(_length(from_mean) - _length(along)))


def _length(rows: tf.Tensor) -> tf.Tensor:
    """[N, d] -> [N], squared."""
    return tf.reduce_sum(tf.square(rows), axis=-1)


def _narrow(array: Array) -> Array:
    return array.astype(np.float32)
