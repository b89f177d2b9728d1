"""What a model computes in: half precision while it trains where that is faster, float32 after."""

import keras
import tensorflow as tf


def policy(asked: str) -> keras.DTypePolicy:
    """`asked`, or for "auto" half precision where a GPU computes faster in it.

    bfloat16 from compute capability 8 on (its range is float32's), float16 from 7 on.
    """
    if asked != "auto":
        return keras.DTypePolicy(asked)
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in gpus
    ]
    oldest = min(capabilities, default=(0, 0))
    if oldest >= (8, 0):
        return keras.DTypePolicy("mixed_bfloat16")
    return keras.DTypePolicy("mixed_float16" if oldest >= (7, 0) else "float32")


def to_float32(model: keras.Model) -> None:
    """Let a model of any precision compute in float32, as if it had been built so.

    Its weights are float32 as they are: half precision casts them at each use, by its layer's
    policy. What was traced before (a `tf.function`, a compiled step) goes on as it was.

    >>> layer = keras.layers.Dense(1, dtype="mixed_bfloat16")
    >>> to_float32(keras.Sequential([keras.Input((2,)), layer]))
    >>> layer.compute_dtype
    'float32'
    """
    # Keras has no public walk that reaches the layers inside layers, as attention has them.
    for layer in model._flatten_layers():
        layer.dtype_policy = "float32"
