"""How large a picture the graph decodes."""

import tensorflow as tf

from training.decoding.content import refuse_unless

# The largest that phones take has 200 million. In memory it is three times as many bytes.
MAX_PIXELS = 1 << 28


def within_limit(width: tf.Tensor, height: tf.Tensor) -> list[tf.Operation]:
    """What must run before so many pixels are decoded: InvalidArgumentError for too many.

    >>> within_limit(tf.constant(MAX_PIXELS), tf.constant(1))
    [None]
    """
    pixels = tf.cast(width, tf.float64) * tf.cast(height, tf.float64)  # int64 could overflow
    message = f"expected an image of at most {MAX_PIXELS} pixels, got more; scale it down"
    return [refuse_unless(pixels <= MAX_PIXELS, message)]
