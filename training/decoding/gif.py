"""The first frame of a GIF in TensorFlow's ops: the rule of sluice/pictures/gif.py."""

import tensorflow as tf

from sluice.pictures.orientation import UPRIGHT
from training.decoding.content import Content, apart, refuse_unless
from training.decoding.limits import within_limit

_IMAGE, _EXTENSION, _CONTROL = 0x2C, 0x21, 0xF9
_SHARED = 13  # where the table of colours that frames share begins
_BEFORE, _IN_EXTENSION, _IN_IMAGE, _DONE, _BROKEN = range(5)  # where a walk through the file is
_FULL = 255  # bytes of a sub-block, which all but the last of a frame have
_AT_ONCE = 256  # full sub-blocks that one step goes over
_MAX_STEPS = 1 << 15  # so much for files that do not fill them


@apart
def decode_gif(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8 [h, w, 3]: the first frame; white where it is transparent or does not reach; and that
    it is upright.

    TensorFlow's own decoder unpacks all frames for the first of them, and draws black what is
    transparent.

    >>> colours = bytes([10, 20, 30, 0, 0, 0])
    >>> pixels = bytes.fromhex("2c 0000 0000 0100 0100 00 02 02 4401 00 3b")
    >>> screen = bytes.fromhex("0100 0100 80 00 00")
    >>> image, _ = decode_gif(tf.constant(b"GIF89a" + screen + colours + pixels))
    >>> image.numpy().tolist()
    [[[10, 20, 30]]]
    """
    content = Content(text)
    end, start, clear = _first_frame(content)
    shared = _SHARED + _table(content, 10)
    own = _table(content, start + 9)
    left, top, width, height = (content.number(start + at, 2) for at in (1, 3, 5, 7))
    screen_width, screen_height = content.number(6, 2), content.number(8, 2)
    screen_width = tf.maximum(screen_width, left + width)
    screen_height = tf.maximum(screen_height, top + height)
    colours = tf.where(own > 0, start + 10, _SHARED)
    has_clear = (clear >= 0) & (3 * clear < tf.where(own > 0, own, shared - _SHARED))
    white = tf.where(has_clear, colours + 3 * clear, -3)
    still = tf.strings.join(
        [
            content.between(0, 6),
            content.between(start + 5, start + 9),  # the screen is as large as the frame
            _whitened(content, 10, shared, white),
            content.between(start, start + 1),
            bytes(4),  # and begins where it does
            _whitened(content, start + 5, end, white),
            b";",
        ]
    )
    with tf.control_dependencies(within_limit(screen_width, screen_height)):
        frame = tf.io.decode_gif(still)[0]
    image = _on_white(frame, top, left, screen_height, screen_width)
    return image, _int64(UPRIGHT)


def _first_frame(content: Content) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where it ends and begins, and the number of its transparent colour, -1 for none: int64 []."""

    def step(
        at: tf.Tensor, state: tf.Tensor, frame: tf.Tensor, clear: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        at, state, frame, clear = tf.cond(
            state == _BEFORE,
            lambda: _at_block(content, at, frame, clear),
            lambda: (*_in_blocks(content, at, state), frame, clear),
        )
        return at, state, frame, clear

    end, state, start, clear = tf.while_loop(
        lambda at, state, *_: (state < _DONE) & (at < content.size),
        step,
        (_SHARED + _table(content, 10), _int64(_BEFORE), _int64(0), _int64(-1)),
        maximum_iterations=_MAX_STEPS,
    )
    whole = refuse_unless(
        state == _DONE, "expected a whole image, got a GIF whose first frame is not whole"
    )
    with tf.control_dependencies([whole]):
        return tf.identity(end), start, clear


def _at_block(
    content: Content, at: tf.Tensor, frame: tf.Tensor, clear: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    kind = content.number(at, 1)
    is_image, is_extension = kind == _IMAGE, kind == _EXTENSION
    is_control = is_extension & (content.number(at + 1, 1) == _CONTROL)
    named = tf.where(content.number(at + 3, 1) % 2 == 1, content.number(at + 6, 1), -1)
    state = tf.where(is_image, _IN_IMAGE, tf.where(is_extension, _IN_EXTENSION, _BROKEN))
    return (
        at + tf.where(is_image, 11 + _table(content, at + 9), 2),
        tf.cast(state, tf.int64),
        tf.where(is_image, at, frame),
        tf.where(is_control, named, clear),
    )


def _in_blocks(content: Content, at: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Over all full sub-blocks that stand here and the one behind them."""
    sizes = content.every(_FULL + 1, at, _AT_ONCE)
    full = tf.argmax(tf.concat([sizes != _FULL, [True]], 0))
    at += full * (_FULL + 1)
    size = content.number(at, 1)
    behind = tf.where(state == _IN_IMAGE, _int64(_DONE), _BEFORE)
    return at + 1 + size, tf.where(size == 0, behind, state)


def _int64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _table(content: Content, at: tf.Tensor | int) -> tf.Tensor:
    """The length of the colours that the packed byte at `at` announces."""
    packed = content.number(at, 1)
    return tf.where(packed >= 128, 3 * tf.bitwise.left_shift(_int64(2), packed % 8), 0)


def _whitened(
    content: Content, start: tf.Tensor | int, end: tf.Tensor, white: tf.Tensor
) -> tf.Tensor:
    """The bytes between two places, with a white colour at `white` if that lies there."""
    start = tf.cast(start, tf.int64)
    return tf.cond(
        (white >= start) & (white < end),
        lambda: tf.strings.join(
            [content.between(start, white), b"\xff\xff\xff", content.between(white + 3, end)]
        ),
        lambda: content.between(start, end),
    )


def _on_white(
    frame: tf.Tensor, top: tf.Tensor, left: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """[h, w, 3] -> [height, width, 3]"""
    size = tf.shape(frame, tf.int64)
    rest = [[top, height - top - size[0]], [left, width - left - size[1]], [0, 0]]
    return tf.pad(frame, rest, constant_values=255)
