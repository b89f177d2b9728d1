"""The score of a class that is explained: what the head's softmax or sigmoid is taken of.

A softmax's probability is bounded, so its gradient vanishes where the model is sure; Selvaraju et
al. ("Grad-CAM", arXiv:1610.02391, section 3) take the gradient of the score before it.
"""

import tensorflow as tf

from training.data.heads import Chance, Classes, Logit, Logits
from training.decoding.content import refuse_unless
from training.explaining.graph import made_by

_LEAST = 1e-12  # probability whose logarithm is taken


def scores(head: Classes, output: tf.Tensor) -> tf.Tensor:
    """A head's output in a graph -> the score of each class, float32 [N, classes].

    Logits are the output itself. Of probabilities, what their softmax or sigmoid was taken of; the
    logarithm of the probability where no such operation stands at the graph's end.

    >>> with tf.Graph().as_default():
    ...     logits = tf.constant([[1.0, 2.0]], name="logits")
    ...     scores(Classes(("cat", "dog")), tf.nn.softmax(logits)).name
    'logits:0'
    """
    if isinstance(head, Logits):
        return tf.cast(output, tf.float32)
    before = output if isinstance(head, Logit) else _before_activation(output)
    if before is None:
        return tf.math.log(tf.maximum(tf.cast(head.probabilities(output), tf.float32), _LEAST))
    before = tf.cast(before, tf.float32)
    return tf.concat([-before, before], axis=-1) if isinstance(head, Chance) else before


def _before_activation(output: tf.Tensor) -> tf.Tensor | None:
    last = made_by(output)
    if last.type not in ("Softmax", "Sigmoid"):
        return None
    before = last.inputs[0]
    return before if before.shape.rank == output.shape.rank else None


def asked_classes(asked: tf.Tensor, each: tf.Tensor, name: str) -> tf.Tensor:
    """int32 [N] of class numbers, -1 for the one with the highest score -> int32 [N] without -1.

    each: the scores, [N, classes]. InvalidArgumentError for a class that there is not, and for
    another number of rows; `name` is the input's.

    >>> asked_classes(tf.constant([-1, 0]), tf.constant([[0.1, 0.9], [0.2, 0.8]]), "class").numpy()
    array([1, 0], dtype=int32)
    """
    rows, classes = tf.unstack(tf.shape(each))
    known = refuse_unless(
        tf.reduce_all((asked >= -1) & (asked < classes)),
        f"{name}: expected -1, for the class with the highest score, or 0 to {each.shape[-1] - 1}",
    )
    whole = refuse_unless(tf.shape(asked)[0] == rows, f"{name}: expected one class for each row")
    with tf.control_dependencies([op for op in (known, whole) if op is not None]):
        return tf.where(asked < 0, tf.argmax(each, axis=-1, output_type=tf.int32), asked)
