"""PNG in TensorFlow's ops, whose own neither turns a picture nor knows a colour as transparent."""

import tensorflow as tf

from sluice.pictures.orientation import MAX_PARTS, UPRIGHT
from training.decoding.content import Content, apart
from training.decoding.limits import within_limit
from training.decoding.orientation import of_tiff

_GREY, _RGB = 0, 2  # colour types
_BEHIND_HEADER = 33


@apart
def decode_png(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8 [h, w, 1..4] and the orientation; of 16 bits the higher 8.

    >>> image, orientation = decode_png(tf.io.encode_png(tf.constant([[[7]]], tf.uint8)))
    >>> image.numpy().tolist(), int(orientation)
    ([[[7]]], 1)
    """
    content = Content(text)
    exif, clear = _parts_before_pixels(content)
    with tf.control_dependencies(
        within_limit(content.number(16, 4, big=True), content.number(20, 4, big=True))
    ):
        image = tf.io.decode_png(text)
    colour = content.number(25, 1)
    has_key = (clear > 0) & ((colour == _GREY) | (colour == _RGB))
    image = tf.cond(has_key, lambda: _with_alpha(image, content, clear), lambda: image)
    orientation = tf.cond(
        exif > 0,
        lambda: of_tiff(content, exif, exif + content.number(exif - 8, 4, big=True)),
        lambda: tf.constant(UPRIGHT, tf.int64),
    )
    return image, orientation


def _parts_before_pixels(content: Content) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the contents of eXIf and tRNS begin, 0 for none: int64 []."""

    def name(at: tf.Tensor) -> tf.Tensor:
        return content.number(at + 4, 4, big=True)

    def step(at: tf.Tensor, exif: tf.Tensor, clear: tf.Tensor) -> tuple[tf.Tensor, ...]:
        here, found = at + 8, name(at)
        return (
            here + content.number(at, 4, big=True) + 4,
            tf.where((found == _named(b"eXIf")) & (exif == 0), here, exif),
            tf.where(found == _named(b"tRNS"), here, clear),
        )

    none = tf.constant(0, tf.int64)
    _, exif, clear = tf.while_loop(
        lambda at, *_: (at < content.size) & (name(at) != _named(b"IDAT")),
        step,
        (tf.constant(_BEHIND_HEADER, tf.int64), none, none),
        maximum_iterations=MAX_PARTS,
    )
    return exif, clear


def _named(name: bytes) -> int:
    return int.from_bytes(name, "big")


def _with_alpha(image: tf.Tensor, content: Content, clear: tf.Tensor) -> tf.Tensor:
    """[h, w, 1 or 3] -> [h, w, 2 or 4], clear where a pixel has the one transparent colour.

    That is compared in 8 bits, as are the pixels.
    """
    depth = content.number(24, 1)
    samples = tf.stack([content.number(clear + at, 2, big=True) for at in (0, 2, 4)])
    most = tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.minimum(depth, 8)) - 1
    key = tf.where(depth == 16, samples // 256, samples * 255 // most)[: tf.shape(image)[-1]]
    is_clear = tf.reduce_all(tf.cast(image, tf.int64) == key, -1, keepdims=True)
    return tf.concat([image, tf.where(is_clear, tf.constant(0, tf.uint8), 255)], -1)
