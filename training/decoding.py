"""What a picture is, in TensorFlow's ops: training reads files as the published graph will."""

import tensorflow as tf


def decode_images(contents: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Files [N] -> pixels [N, H, W, C] of 0..255, float32.

    >>> grey = tf.io.encode_png(tf.constant([[[7], [9]]], tf.uint8))
    >>> decode_images(tf.stack([grey, grey]), (1, 2, 1)).shape
    TensorShape([2, 1, 2, 1])
    """
    return tf.map_fn(
        lambda content: decode_image(content, shape),
        contents,
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def decode_image(content: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """JPEG, PNG, GIF (its first frame) or BMP -> [H, W, C] of 0..255; transparency is dropped.

    shape: [H, W, C] with C of 1 or 3. Raises InvalidArgumentError for any other file.

    >>> grey = tf.io.encode_png(tf.constant([[[7], [9]]], tf.uint8))
    >>> decode_image(grey, (1, 2, 3)).numpy().tolist()
    [[[7.0, 7.0, 7.0], [9.0, 9.0, 9.0]]]
    """
    height, width, channels = shape
    image = tf.io.decode_image(content, expand_animations=False)  # [h, w, 1..4]
    image = _match_channels(image, channels)
    return tf.ensure_shape(tf.image.resize(image, (height, width), antialias=True), shape)


def _match_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """[h, w, 1..4] (grey, grey + alpha, RGB, RGB + alpha) -> [h, w, channels], float32.

    A grey image keeps its numbers exactly, which decoding it to RGB and back would not.
    """
    image = tf.cast(image, tf.float32)
    grey = tf.shape(image)[-1] < 3
    if channels == 1:
        return tf.cond(
            grey, lambda: image[..., :1], lambda: tf.image.rgb_to_grayscale(image[..., :3])
        )
    return tf.cond(grey, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3])
