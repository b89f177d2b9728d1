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

    directions: [d, r], which give a row its coordinates; origin: those of the mean, [r].
    weights: of a coordinate's square, [r].
    rest: the features' mean, and their weights where the rest counts: [2, d], or [2, 0].

    >>> rng = np.random.default_rng(0)
    >>> spread = Spread.of(rng.normal(size=(1000, 3)) * [1, 10, 100])
    >>> spread.distances(np.array([[0, 0, 0], [4, 0, 0], [0, 0, 400]])).round().tolist()
    [0.0, 4.0, 4.0]
    """

    directions: Array
    origin: Array
    weights: Array
    rest: Array

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
        left = 1 / (found.noise_variance_ + floor) if rank < width else 0.0
        centre, directions = features.mean(axis=0), found.components_.T / scale[:, np.newaxis]
        rest = np.stack([centre, np.sqrt(left) / scale]) if left else np.empty((2, 0))
        weights = 1 / (found.explained_variance_ + floor) - left
        arrays = (directions, centre @ directions, weights, rest)
        return cls(*(array.astype(np.float32) for array in arrays))

    def in_units_of(self, threshold: float) -> "Spread":
        """The same, whose distance 1 is this one's `threshold`.

        >>> spread = Spread.of(np.random.default_rng(0).normal(size=(1000, 1)))
        >>> spread.in_units_of(3).distances(np.array([[6]])).round().tolist()
        [2.0]
        """
        rest = self.rest / np.array([[1], [threshold]], np.float32)
        return replace(self, weights=self.weights / threshold**2, rest=rest)

    def arrays(self) -> Mapping[str, Array]:
        """The statistics by name, float32.

        >>> [*Spread.of(np.eye(3)).arrays()]
        ['directions', 'origin', 'weights', 'rest']
        """
        return dict(vars(self))

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
    along = tf.matmul(features, spread["directions"]) - spread["origin"]  # [N, r]
    squared = tf.linalg.matvec(tf.square(along), spread["weights"])
    if spread["rest"].shape[-1]:
        centre, weights = tf.unstack(spread["rest"])
        squared += tf.reduce_sum(tf.square((features - centre) * weights), axis=-1)
    return tf.sqrt(tf.nn.relu(squared))
