"""What a picture is, in TensorFlow's ops: training reads files as the published graph will.

The rules are those of docs/contract.md and sluice/pictures. TensorFlow's decoders get the files
with what they do not know about done before and after.
"""

from collections.abc import Sequence
from functools import partial

import tensorflow as tf

from sluice.pictures.formats import EXPECTED, FOREIGN, FORMATS, Foreign, Mark
from sluice.pictures.orientation import UPRIGHT
from training.decoding.bmp import decode_bmp
from training.decoding.content import CPU, apart, refuse_unless
from training.decoding.gif import decode_gif
from training.decoding.jpeg import decode_jpeg
from training.decoding.orientation import is_on_its_side, turned
from training.decoding.png import decode_png

_WHITE = 255.0
_HEAD = 12  # bytes of a file in which its mark is
# TensorFlow's newer versions read it, and an animated one makes them write where they may not
# (2.21: "double free or corruption").
_WEBP = Foreign(
    FORMATS["WebP"], "a WebP file", "save it as PNG, or ask the gateway, which reads it"
)


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
    """JPEG, PNG, GIF (its first frame) or BMP -> [H, W, C] of 0..255, upright, on white.

    shape: [H, W, C] with C of 1 or 3. Raises InvalidArgumentError for any other file.

    >>> grey = tf.io.encode_png(tf.constant([[[7], [9]]], tf.uint8))
    >>> decode_image(grey, (1, 2, 3)).numpy().tolist()
    [[[7.0, 7.0, 7.0], [9.0, 9.0, 9.0]]]
    """
    height, width, channels = shape
    with tf.device(CPU):
        image, orientation = _decoded(content)
        image = _on_white(image)
        # Small as it then is, the picture is turned at no cost.
        size = tf.where(is_on_its_side(orientation), (width, height), (height, width))
        image = _resized(image, size)
        image = turned(_match_channels(image, channels), orientation)
        return tf.ensure_shape(image, shape)


def _decoded(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[h, w, 1..4] and EXIF's orientation."""
    decoders = {"JPEG": decode_jpeg, "PNG": decode_png, "GIF": decode_gif, "BMP": decode_bmp}
    kind = _index_of(content, [FORMATS[kind] for kind in decoders])
    branches = [*decoders.values(), _refused]
    image, orientation = tf.switch_case(kind, [partial(decode, content) for decode in branches])
    return image, orientation


def _index_of(content: tf.Tensor, marks: Sequence[Mark]) -> tf.Tensor:
    """Which of the marks a file has, as many as there are for none: int32 []."""
    head = tf.strings.join([tf.strings.substr(content, 0, _HEAD), bytes(_HEAD)])
    has = [
        tf.reduce_all([tf.strings.substr(head, at, len(part)) == part for at, part in mark])
        for mark in marks
    ]
    return tf.argmax(tf.stack([*has, True]), output_type=tf.int32)


@apart
def _refused(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What it is, where that is known, instead of a picture."""
    kinds = (_WEBP, *FOREIGN)
    sentences = [f"expected {EXPECTED}, got {each}" for each in (*kinds, "what is no picture")]
    sentence = tf.gather(sentences, _index_of(content, [each.mark for each in kinds]))
    with tf.control_dependencies([refuse_unless(tf.constant(False), sentence)]):
        return tf.zeros([1, 1, 1], tf.uint8), tf.constant(UPRIGHT, tf.int64)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """[h, w, 1..4] -> [h, w, 1 or 3]: what is transparent shows white."""

    def blended() -> tf.Tensor:
        alpha = tf.cast(image[..., -1:], tf.float32) / _WHITE
        colours = tf.cast(image[..., :-1], tf.float32)
        return tf.cast(tf.round(colours * alpha + _WHITE * (1 - alpha)), tf.uint8)

    return tf.cond(tf.shape(image)[-1] % 2 == 0, blended, lambda: image)


def _resized(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[h, w, C] -> [*size, C], float32. What has that size already is not filtered, which would
    give the same numbers for as long as a small JPEG takes to decode."""
    return tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == size),
        lambda: tf.cast(image, tf.float32),
        lambda: tf.image.resize(image, size, antialias=True),
    )


def _match_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """[h, w, 1 or 3] -> [h, w, channels], float32.

    A grey image keeps its numbers exactly, which decoding it to RGB and back would not.
    """
    grey = tf.shape(image)[-1] == 1
    if channels == 1:
        return tf.cond(grey, lambda: image, lambda: tf.image.rgb_to_grayscale(image))
    return tf.cond(grey, lambda: tf.repeat(image, 3, axis=-1), lambda: image)
