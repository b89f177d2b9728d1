"""Names of inputs and outputs where Keras has lost them, or made them up.

Keras calls a tensor after nothing (`keras_tensor_12`), after its layer's class (`input_1`,
`dense_3`) or by its place (`output_0`). Such a name tells a client nothing and changes with every
run that builds the model, so what the tensor is stands in its place. And what it is stands before a
name that Python cannot call an argument by, which TensorFlow does: `class`, `1st`.
"""

import re
import unicodedata
from collections.abc import Iterable
from keyword import iskeyword

from sluice.wire.contract import CLASSES_SUFFIX, SCORES_SUFFIX

_MADE_UP_INPUT = re.compile(
    r"(keras_tensor|inputs?|input_layer|args)(_\d+)?|\w+_input|x|sequential(_\d+)?_\w+"
)
_MADE_UP_OUTPUT = re.compile(
    r"(keras_tensor|outputs?|dense|activation|(log_)?softmax|reshape|flatten|lambda|dropout|"
    r"sequential|functional|model|(batch|layer|group|rms|unit)_normalization|add|concatenate|"
    r"((global|adaptive)_)?(average|max)_pooling[123]d|rescaling|time_distributed|"
    r"((depthwise|separable)_)?conv[123]d(_transpose)?|conv_lstm[123]d|up_sampling[123]d|"
    r"(zero_padding|cropping)[123]d|((leaky|p|thresholded)_)?re_lu|lstm|gru|simple_rnn|"
    r"bidirectional|text_vectorization|(integer|string)_lookup)(_\d+)?"
)
_TENSORFLOWS = ("self",)  # arguments of its own beside a signature's
_NOT_WORDS = re.compile(r"\W+", re.ASCII)


def name_inputs(given: Iterable[tuple[str, str]]) -> list[str]:
    """(Keras's name, kind) of each input -> what it is called.

    >>> name_inputs([("keras_tensor_3", "image")])
    ['image']
    >>> name_inputs([("left", "image"), ("input_2", "numbers"), ("1st", "image")])
    ['left', 'numbers', 'image_1st']
    """
    return _named(given, _MADE_UP_INPUT)


def name_heads(given: Iterable[tuple[str, str]]) -> list[str]:
    """(Keras's name, kind) of each output -> what it is called.

    >>> name_heads([("dense_1", "label"), ("dense_2", "label"), ("age", "number")])
    ['label', 'label_2', 'age']
    >>> name_heads([("mood", "label"), ("mood_scores", "output")])  # which is to be mood's own
    ['mood', 'output_mood_scores']
    >>> name_heads([("conv2d_transpose_3", "mask"), ("string_lookup", "output")])
    ['mask', 'output']
    >>> name_heads([("edges_conv2d", "mask"), ("price_lookup", "output")])  # somebody's own
    ['edges_conv2d', 'price_lookup']
    """
    given = [*given]
    names = _named(given, _MADE_UP_OUTPUT)
    taken = {f"{name}{suffix}" for name in names for suffix in (CLASSES_SUFFIX, SCORES_SUFFIX)}
    return [
        _free(f"{kind}_{name}", names) if name in taken else name
        for name, (_, kind) in zip(names, given, strict=True)
    ]


def _named(given: Iterable[tuple[str, str]], made_up: re.Pattern[str]) -> list[str]:
    names: list[str] = []
    for own, kind in given:
        words = _NOT_WORDS.sub("_", _plain(own)).strip("_")
        name = kind if not words or made_up.fullmatch(own) else words
        names.append(_free(name if _is_argument(name) else f"{kind}_{name}", names))
    return names


def _is_argument(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name) and name not in _TENSORFLOWS


def _plain(name: str) -> str:
    """Letters without their accents, where they have any."""
    parts = unicodedata.normalize("NFKD", name)
    return "".join(part for part in parts if not unicodedata.combining(part))


def _free(name: str, taken: list[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
