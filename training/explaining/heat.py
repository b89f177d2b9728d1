"""Maps and gradients -> heat of 0..1."""

from collections.abc import Sequence

import tensorflow as tf

from training.explaining.tokens import Grid


def grad_cam(maps: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Feature maps [N, h, w, C] and the score's gradient to them -> heat [N, h, w] of 0..1.

    What speaks against the class is left out, as in Selvaraju et al., "Grad-CAM"
    (arXiv:1610.02391), equations 1 and 2; but each place counts by its own gradient, and not by its
    map's mean: Draelos and Carin, "HiResCAM" (arXiv:2011.08891). Before a global average pooling
    the two are one; before a flatten, where every place has weights of its own, the mean points
    elsewhere (docs/explain.md has figures).

    >>> maps = tf.constant([[[[1.0, 0.0], [0.0, 4.0]]]])
    >>> grad_cam(maps, tf.constant([[[[2.0, 1.0], [0.0, 1.0]]]])).numpy().tolist()
    [[[0.5, 1.0]]]
    """
    return _normalised(tf.reduce_sum(maps * gradient, axis=-1))


def input_gradient(gradient: tf.Tensor) -> tf.Tensor:
    """The score's gradient to the pixels [N, H, W, C] -> heat [N, H, W] of 0..1.

    The largest of the channels' gradients, either way: Simonyan et al., "Deep Inside Convolutional
    Networks" (arXiv:1312.6034), section 3.1.

    >>> input_gradient(tf.constant([[[[1.0, -4.0], [2.0, 0.0]]]])).numpy().tolist()
    [[[1.0, 0.5]]]
    """
    return _normalised(tf.reduce_max(tf.abs(gradient), axis=-1))


def of_tokens(
    tokens: tf.Tensor, gradient: tf.Tensor, grid: Grid, attentions: Sequence[tf.Tensor] = ()
) -> tf.Tensor:
    """Tokens [N, T, C] and the score's gradient to them -> heat [N, h, w] of 0..1.

    What a token says for the class is how much the score would lose, by its slope, were it as the
    mean of the patches; it goes back to the patches that the token has come to be made of through
    `attentions`, [N, heads, T, T] from the first on: Abnar and Zuidema, "Quantifying Attention Flow
    in Transformers" (arXiv:2005.00928), section 3, with half of each token its own.

    >>> tokens, swapped = tf.constant([[[0.0], [4.0]]]), tf.constant([[[[0.0, 1.0], [1.0, 0.0]]]])
    >>> of_tokens(tokens, tf.ones((1, 2, 1)), Grid(0, 1, 2)).numpy().tolist()
    [[[0.0, 1.0]]]
    >>> of_tokens(tokens, tf.ones((1, 2, 1)), Grid(0, 1, 2), [swapped]).numpy().tolist()
    [[[1.0, 1.0]]]
    """
    patches = grid.laid_out(tokens)
    usual = tf.reduce_mean(patches, axis=[1, 2])[:, tf.newaxis]  # [N, 1, C]
    evidence = tf.nn.relu(tf.reduce_sum((tokens - usual) * gradient, axis=-1))  # [N, T]
    for each in reversed(attentions):
        mixed = tf.reduce_mean(tf.cast(each, tf.float32), axis=1)  # [N, T, T]
        evidence = (evidence + tf.linalg.matvec(mixed, evidence, transpose_a=True)) / 2
    return _normalised(grid.laid_out(evidence))


def _normalised(evidence: tf.Tensor) -> tf.Tensor:
    """[N, h, w] -> 0 to 1, the strongest place of each image 1; all 0 where nothing speaks for the
    class. What is no number is 0 too."""
    evidence = tf.where(tf.math.is_finite(evidence), tf.nn.relu(evidence), 0.0)
    return tf.math.divide_no_nan(evidence, tf.reduce_max(evidence, axis=[1, 2], keepdims=True))
