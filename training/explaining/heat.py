"""Maps and gradients -> heat of 0..1."""

import tensorflow as tf


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


def _normalised(evidence: tf.Tensor) -> tf.Tensor:
    """[N, h, w] -> 0 to 1, the strongest place of each image 1; all 0 where nothing speaks for the
    class. What is no number is 0 too."""
    evidence = tf.where(tf.math.is_finite(evidence), tf.nn.relu(evidence), 0.0)
    return tf.math.divide_no_nan(evidence, tf.reduce_max(evidence, axis=[1, 2], keepdims=True))
