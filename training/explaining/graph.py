"""What a tensor of a TensorFlow graph is computed from."""

from collections.abc import Callable

import tensorflow as tf

_NOTHING_DONE = ("Identity", "Cast", "Reshape", "Squeeze")
Tensors = dict[str, tf.Tensor]  # by their names, each of which a graph has once


def behind(tensor: tf.Tensor, through: Callable[[tf.Tensor], bool] = lambda _: True) -> Tensors:
    """The tensor, and all that it is computed from, as far as `through` says.

    >>> with tf.Graph().as_default():
    ...     x = tf.constant([1.0], name="x")
    ...     list(behind(tf.nn.relu(x, name="y")))
    ['y:0', 'x:0']
    """
    found = {tensor.name: tensor}
    waiting = [tensor]
    while waiting:
        for each in waiting.pop().op.inputs:
            if each.name not in found and through(each):
                found[each.name] = each
                waiting.append(each)
    return found


def sees_through(score: tf.Tensor, tensor: tf.Tensor, image: tf.Tensor) -> bool:
    """Whether the score sees the image through this tensor alone: not one branch of several.

    >>> with tf.Graph().as_default():
    ...     image = tf.constant([1.0])
    ...     first, second = tf.nn.relu(image), tf.exp(image)
    ...     sees_through(first + 1, first, image), sees_through(first + second, first, image)
    (True, False)
    """
    return image.name not in behind(score, through=lambda other: other.name != tensor.name)


def made_by(tensor: tf.Tensor) -> tf.Operation:
    """The last operation that changed a number of the tensor.

    >>> with tf.Graph().as_default():
    ...     made_by(tf.identity(tf.nn.softmax(tf.zeros([1, 2])))).type
    'Softmax'
    """
    operation = tensor.op
    while operation.type in _NOTHING_DONE:
        operation = operation.inputs[0].op
    return operation
