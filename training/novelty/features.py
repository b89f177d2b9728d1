"""What of a model's answer tells a strange picture: the statistics of its last maps."""

import math
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

# What has weights. Before the first of them there are only pixels, prepared.
_LEARNT = {
    "Conv2D",
    "Conv3D",
    "DepthwiseConv2dNative",
    "MatMul",
    "BatchMatMulV2",
    "Einsum",
    "ResourceGather",
}
_MATRIX_PRODUCT = "MatMul"
_POSITIVE = {"Relu", "Relu6", "Sigmoid", "Softmax"}
_KEEPING = {"Identity", "MaxPool", "AvgPool", "Reshape", "Cast"}  # of signs


def features(outputs: Iterable[tf.Tensor], inputs: Iterable[tf.Tensor]) -> tf.Tensor | None:
    """What stands behind the outputs [N, ...] of a graph: float32 [N, d], or None where nothing.

    Of each map [N, h, w, C] (or sequence [N, T, C]) that is flattened or pooled on the way to the
    outputs, the channels' means and deviations; without any, what the last dense layers take. Of
    each number the square root, as large ones vary the more.

    inputs: the model's, of the same graph; what lies before them is not looked at.

    >>> @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1])], autograph=False)
    ... def look(image):
    ...     maps = tf.nn.conv2d(image, tf.ones([3, 3, 1, 4]), strides=1, padding="VALID")
    ...     return features([tf.reduce_mean(maps, axis=[1, 2])], [image])
    >>> look(tf.ones([5, 8, 8, 1])).shape
    TensorShape([5, 8])
    """
    known = {tensor.name for tensor in inputs}
    outputs = [*outputs]
    maps = [*_nearest(outputs, known, _is_map)]
    if maps:
        found = [_root(_moments(each), _is_positive(each)) for each in maps]
        return found[0] if len(found) == 1 else tf.concat(found, axis=-1)
    taken = [each.op.inputs[0] for each in _nearest(outputs, known, _is_product)]
    dense = [tf.cast(each, tf.float32) for each in taken if each.shape[-1] is not None]
    return _root(tf.concat(dense, axis=-1)) if dense else None


def _nearest(
    outputs: Iterable[tf.Tensor], inputs: set[str], wanted: Callable[[tf.Tensor], bool]
) -> Iterator[tf.Tensor]:
    """On each way back from the outputs, the first tensor that is wanted and has weights behind."""
    seen, waiting = set(inputs), [*outputs]
    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen or not tensor.dtype.is_floating:
            continue
        seen.add(tensor.name)
        if wanted(tensor) and _is_learnt(tensor, inputs):
            yield tensor
        else:
            waiting.extend(tensor.op.inputs)


def _is_map(tensor: tf.Tensor) -> bool:
    shape = tensor.shape
    return (shape.rank or 0) > 2 and shape[0] is None and shape[-1] is not None


def _is_product(tensor: tf.Tensor) -> bool:
    return tensor.op.type == _MATRIX_PRODUCT and tensor.shape[0] is None


def _is_learnt(tensor: tf.Tensor, inputs: set[str]) -> bool:
    seen, waiting = set(inputs), [tensor]
    while waiting:
        each = waiting.pop()
        if each.name in seen:
            continue
        if each.op.type in _LEARNT:
            return True
        seen.add(each.name)
        waiting.extend(each.op.inputs)
    return False


def _moments(tensor: tf.Tensor) -> tf.Tensor:
    """[N, ..., C] -> means and deviations over the places, float32 [N, 2 C]."""
    values = tf.cast(_in_a_row(tensor), tf.float32)
    mean = tf.reduce_mean(values, axis=1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(values, mean), axis=1, keepdims=True)
    both = tf.concat([mean, tf.sqrt(variance)], axis=1)  # [N, 2, C]
    return tf.reshape(both, [-1, 2 * tensor.shape[-1]])


def _is_positive(tensor: tf.Tensor) -> bool:
    """Whether what gives it says that no number is below 0."""
    while tensor.op.type in _KEEPING:
        tensor = tensor.op.inputs[0]
    return tensor.op.type in _POSITIVE


def _in_a_row(tensor: tf.Tensor) -> tf.Tensor:
    """[N, ..., C] -> [N, places, C].

    Of no rows too, which oneDNN's pooling gives another shape than the graph says.
    """
    *places, channels = tensor.shape[1:]
    if None not in places:
        return tf.reshape(tensor, [-1, math.prod(places), channels])
    sizes = tf.shape(tensor)
    wanted = [sizes[0], tf.reduce_prod(sizes[1:-1]), channels]
    return tf.cond(
        sizes[0] > 0,
        lambda: tf.reshape(tensor, wanted),
        lambda: tf.zeros([0, 1, channels], tensor.dtype),
    )


def _root(values: tf.Tensor, positive: bool = False) -> tf.Tensor:
    return tf.sqrt(values) if positive else tf.sign(values) * tf.sqrt(tf.abs(values))
