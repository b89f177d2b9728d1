"""JPEG in TensorFlow's ops, whose own do not turn a picture."""

import tensorflow as tf

from sluice.pictures.orientation import EXIF_MARK, MAX_PARTS, UPRIGHT
from training.decoding.content import Content, apart
from training.decoding.limits import within_limit
from training.decoding.orientation import of_tiff

_APP0, _APP15, _COMMENT, _FILLING = 0xFFE0, 0xFFEF, 0xFFFE, 0xFFFF


@apart
def decode_jpeg(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8 [h, w, 1 or 3] and the orientation.

    >>> image, orientation = decode_jpeg(tf.io.encode_jpeg(tf.zeros([8, 8, 1], tf.uint8)))
    >>> image.shape, int(orientation)
    (TensorShape([8, 8, 1]), 1)
    """
    content = Content(text)
    shape = tf.cast(tf.image.extract_jpeg_shape(text), tf.int64)  # [h, w, channels]
    with tf.control_dependencies(within_limit(shape[1], shape[0])):
        # The quicker method, which is TensorFlow's choice, is off by up to 5 of 255.
        image = tf.io.decode_jpeg(text, dct_method="INTEGER_ACCURATE")
    return image, _orientation(content)


def _orientation(content: Content) -> tf.Tensor:
    """Of the first EXIF among the APPn and COM segments that a file begins with."""
    start = tf.constant(2, tf.int64)
    at, _, is_exif = tf.while_loop(
        lambda _, marker, is_exif: ~is_exif & _is_early(marker),
        lambda at, marker, _: _next(content, at, marker),
        (start, content.number(2, 2, big=True), _is_exif(content, start)),
        maximum_iterations=MAX_PARTS,
    )
    return tf.cond(
        is_exif,
        lambda: of_tiff(content, at + 10, at + 2 + content.number(at + 2, 2, big=True)),
        lambda: tf.constant(UPRIGHT, tf.int64),
    )


def _is_early(marker: tf.Tensor) -> tf.Tensor:
    return ((marker >= _APP0) & (marker <= _APP15)) | (marker >= _COMMENT)


def _is_exif(content: Content, at: tf.Tensor) -> tf.Tensor:
    return content.starts_with(b"\xff\xe1", at) & content.starts_with(EXIF_MARK, at + 4)


def _next(content: Content, at: tf.Tensor, marker: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The segment behind, its marker, and whether it is EXIF."""
    length = content.number(at + 2, 2, big=True)
    at += tf.where(marker == _FILLING, tf.constant(1, tf.int64), 2 + length)
    return at, content.number(at, 2, big=True), _is_exif(content, at)
