"""BMP in TensorFlow's ops, whose own takes a palette's numbers of colours for shades of grey."""

import tensorflow as tf

from sluice.pictures.formats import EXPECTED
from sluice.pictures.orientation import UPRIGHT
from training.decoding.content import Content, apart, refuse_unless
from training.decoding.limits import within_limit

_LEAST_HEADER, _RGB, _BITFIELDS = 40, 0, 3
_MASKS = bytes.fromhex("0000ff00 00ff0000 ff000000")  # blue first, as in 24 bits
_DEPTHS = (8, 24, 32)


@apart
def decode_bmp(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8 [h, w, 3] of 8 (by its palette), 24 or 32 bits, whose fourth byte is passed over; and
    that it is upright.

    >>> head = bytes.fromhex("424d 3a000000 00000000 36000000 28000000 01000000 01000000 0100 1800")
    >>> image, _ = decode_bmp(tf.constant(head + bytes(24) + bytes([30, 20, 10, 0])))
    >>> image.numpy().tolist()
    [[[10, 20, 30]]]
    """
    content = Content(text)
    start, header, width, depth, packed = (
        content.number(at, size) for at, size in ((10, 4), (14, 4), (18, 4), (28, 2), (30, 4))
    )
    signed = content.number(22, 4)  # below 0 where the file begins with the highest line
    height = tf.where(signed >= 2**31, 2**32 - signed, signed)
    masked = (packed == _BITFIELDS) & (depth == 32) & content.starts_with(_MASKS, 54)
    plain = (
        (header >= _LEAST_HEADER)
        & tf.reduce_any(depth == tf.constant(_DEPTHS, tf.int64))
        & ((packed == _RGB) | masked)
    )
    size = start + (width * depth + 31) // 32 * 4 * height
    checks = [
        refuse_unless(
            plain,
            f"expected {EXPECTED}, got a BMP file of another kind than 8, 24 or 32 bits, not "
            "packed (save it as PNG, or ask the gateway, which reads it)",
        ),
        *within_limit(width, height),
    ]
    with tf.control_dependencies(checks):
        image = tf.io.decode_bmp(content.between(0, size))
    image = tf.cond(
        depth == 8, lambda: _coloured(image, content, header, start), lambda: image[..., :3]
    )
    return image, tf.constant(UPRIGHT, tf.int64)


def _coloured(
    numbers: tf.Tensor, content: Content, header: tf.Tensor, start: tf.Tensor
) -> tf.Tensor:
    """Numbers of colours [h, w, 1] -> [h, w, 3]; the palette stands before the pixels."""
    colours = content.rows(14 + header, start, 4)[:, :3]  # blue first
    palette = tf.cast(tf.reverse(colours, [1]), tf.uint8)
    return tf.gather(palette, tf.cast(numbers[..., 0], tf.int32))
