"""EXIF's orientation in TensorFlow's ops: the rule of sluice/pictures/orientation.py."""

import tensorflow as tf

from sluice.pictures.orientation import TAG, UPRIGHT
from training.decoding.content import Content, weights

_LONG = 4  # TIFF's kind of number; the other is SHORT
_ENTRY = 12  # bytes


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """[h, w, C] as it was seen.

    >>> turned(tf.constant([[[1], [2]]]), tf.constant(6, tf.int64)).numpy().tolist()
    [[[1]], [[2]]]
    """
    return tf.cond(orientation == UPRIGHT, lambda: image, lambda: _turned(image, orientation))


def is_on_its_side(orientation: tf.Tensor) -> tf.Tensor:
    """Whether height and width change places: bool [].

    >>> bool(is_on_its_side(tf.constant(6, tf.int64)))
    True
    """
    return orientation >= 5


def of_tiff(content: Content, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """1 to 8, int64 []: what TIFF's block between two places says; 1 where it says nothing.

    >>> block = bytes.fromhex("49492a00 08000000 0100 1201 0300 01000000 06000000")
    >>> whole = tf.constant(len(block), tf.int64)
    >>> int(of_tiff(Content(tf.constant(block)), tf.constant(0, tf.int64), whole))
    6
    """
    big = content.starts_with(b"MM\0*", start)
    known = (big | content.starts_with(b"II*\0", start)) & (end > start)
    end = tf.minimum(end, content.size)
    directory = start + content.number(start + 4, 4, big=big)
    entries = directory + 2
    count = tf.where(entries <= end, content.number(directory, 2, big=big), 0)
    rows = content.rows(entries, tf.minimum(entries + count * _ENTRY, end), _ENTRY)
    found = _number(rows, 0, 2, big) == TAG
    at = tf.argmax(tf.concat([found, [True]], 0))  # the first, or a row of zeros
    row = tf.concat([rows, tf.zeros([1, _ENTRY], tf.int64)], 0)[at : at + 1]
    is_long = _number(row, 2, 2, big) == _LONG
    value = tf.where(is_long, _number(row, 8, 4, big), _number(row, 8, 2, big))[0]
    return tf.where(known & (value >= 1) & (value <= 8), value, UPRIGHT)


def _number(rows: tf.Tensor, at: int, size: int, big: tf.Tensor) -> tf.Tensor:
    """[N, 12] -> [N]"""
    return tf.linalg.matvec(rows[:, at : at + size], weights(size, big))


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    image = tf.cond(
        is_on_its_side(orientation), lambda: tf.transpose(image, [1, 0, 2]), lambda: image
    )
    for axis, numbers in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
        places = tf.range(tf.shape(image)[axis])
        flipped = tf.reduce_any(orientation == tf.constant(numbers, tf.int64))
        image = tf.gather(image, tf.where(flipped, tf.reverse(places, [0]), places), axis=axis)
    return image
