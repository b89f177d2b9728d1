"""A prediction as HTML, for a notebook: labels as bars, masks and heat over the picture, pictures,
numbers.

Colours are the page's own, or let it through, so that it is read on light and dark. What is drawn
has bounds (SHOWN_ROWS, MOST_SIDE, MOST_EMBEDDED), as it is kept in the notebook's file.
"""

import importlib.util
import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sluice.client._pixels import (
    IS_HEATMAP,
    MOST_SIDE,
    bounds_of,
    heat,
    is_heat,
    is_logits,
    is_mask,
    is_picture,
    is_unit,
    mask,
    picture,
)
from sluice.client._png import data_url, png_url
from sluice.client.tables import value_text
from sluice.pictures.formats import format_of
from sluice.wire.contract import CLASSES_SUFFIX, SCORES_SUFFIX
from sluice.wire.signature import shape_text
from sluice.wire.tensors import Array

if TYPE_CHECKING:
    from sluice.client.results import Guess, Prediction

SHOWN_ROWS, SHOWN_GUESSES = 8, 5
SHOWN_LINES, SHOWN_COLUMNS = 6, 10  # of an array
SHOWN_CHARACTERS = 80  # of a label, a name or a text
MOST_EMBEDDED = 100_000  # bytes of a picture's file; a larger one is made smaller by Pillow

_STYLE = """<style>
.sluice {font-size: 12px}
.sluice table {color: inherit; border-collapse: collapse; margin: 2px 0; font-size: inherit}
.sluice td, .sluice th {background: none; border: 0; padding: 1px 6px; text-align: left}
.sluice .over:hover img + img, .sluice .over:focus img + img {opacity: 0}
</style>"""
_ROW = "display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; margin: 6px 0"
_NUMBER = "text-align: right; font-variant-numeric: tabular-nums"
_TRACK = "width: 140px; height: 11px; background: rgba(128, 128, 128, .25)"
_WIDTH = 144  # CSS pixels of a picture
_COVER = "position: absolute; left: 0; top: 0; width: 100%; height: 100%"


def html(prediction: "Prediction") -> str:
    """The first SHOWN_ROWS rows; nothing in it runs, or is asked of anybody.

    >>> import numpy as np
    >>> from sluice.client.results import Prediction
    >>> drawn = html(Prediction({"y": np.float32([2 / 3])}, "<affine>", 1, "serving_default"))
    >>> "<b>&lt;affine&gt;</b> version 1" in drawn, "0.666667" in drawn
    (True, True)
    """
    rows = _row_count(prediction)
    version = "" if prediction.version is None else f" version {prediction.version}"
    parts = [f"<div><b>{_text(prediction.model)}</b>{version}, {_text(prediction.signature)}</div>"]
    asked, answered = _shown(prediction.inputs, rows), _shown(prediction, rows)
    parts += [_row(prediction, asked, answered, row) for row in range(min(rows, SHOWN_ROWS))]
    if rows > SHOWN_ROWS:
        parts.append(f"<div>and {rows - SHOWN_ROWS} more rows</div>")
    parts += [
        _block(name, _numbers(_plain(array)))
        for name, array in prediction.items()
        if name not in answered
    ]
    return f'<div class="sluice">{_STYLE}{"".join(parts)}</div>'


def _row_count(prediction: "Prediction") -> int:
    """Of what was asked, where that is known, else of most outputs."""
    arrays = list(prediction.inputs.values()) or list(prediction.values())
    counts = [len(array) for array in arrays if array.ndim]
    return max(counts, key=counts.count, default=0)


def _shown(arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """The first rows of those that have so many."""
    return {
        name: _plain(array[:SHOWN_ROWS])
        for name, array in arrays.items()
        if array.shape[:1] == (rows,)
    }


def _row(
    prediction: "Prediction", asked: dict[str, Array], answered: dict[str, Array], row: int
) -> str:
    drawn = {name: _asked(array, row, name) for name, array in asked.items()}
    pictures = {name: each for name, each in drawn.items() if each}
    heads = prediction.heads
    of_heads = {f"{head}{end}" for head in heads for end in ("", CLASSES_SUFFIX, SCORES_SUFFIX)}
    blocks = [
        *(_block(name, each) for name, each in pictures.items()),
        *(_block(head, _bars(prediction, head, row)) for head in heads),
        *(
            _block(name, _as_what_it_is(name, array, row, pictures))
            for name, array in answered.items()
            if name not in of_heads
        ),
    ]
    return f'<div style="{_ROW}">{"".join(blocks)}</div>'


def _as_what_it_is(name: str, array: Array, row: int, pictures: dict[str, str]) -> str:
    under = _picture_under(name, pictures)
    if is_heat(name, array):
        return _over(under, heat(array[row]), "where the model looked")
    drawing, unit, logits = is_picture(array), is_unit(array), is_logits(array)
    if drawing and not unit and not logits:
        return _drawn(array, row)
    if under and (logits or is_mask(name, array)):
        return _over(under, mask(array[row]), "the mask", "pixelated")
    return _drawn(array, row) if drawing and not logits else _numbers(array[row])


def _picture_under(name: str, pictures: dict[str, str]) -> str:
    """The picture that an output lies over: of several the one that its name ends with."""
    named = [each for each in pictures if IS_HEATMAP.search(name) and name.endswith(f"_{each}")]
    return pictures[named[0]] if named else next(iter(pictures.values()), "")


def _asked(array: Array, row: int, name: str) -> str:
    """The picture of an input; nothing where the input is none."""
    if is_picture(array):
        return _drawn(array, row, name)
    value = array[row]
    kind = format_of(value) if isinstance(value, bytes) else None
    return _file(value, kind.lower(), name) if kind else ""


def _drawn(array: Array, row: int, what: str = "a picture that the model made") -> str:
    return _image(png_url(picture(array[row], bounds_of(array))), what, array.shape[2] < _WIDTH)


def _file(content: bytes, kind: str, name: str) -> str:
    if len(content) <= MOST_EMBEDDED:
        few = kind == "png" and int.from_bytes(content[16:20]) < _WIDTH  # its header's width
        return _image(data_url(content, kind), name, few)
    smaller = _smaller_file(content)
    if smaller:
        return _image(data_url(smaller, "png"), name)
    return f"<div>a picture of {len(content):,} bytes; with Pillow installed, it is shown</div>"


def _smaller_file(content: bytes) -> bytes:
    """By Pillow, which the client does without where there is none; nothing for what it refuses."""
    if not importlib.util.find_spec("PIL"):
        return b""
    from PIL import Image, ImageOps

    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (MOST_SIDE, MOST_SIDE))
            upright = ImageOps.exif_transpose(opened)
            upright.thumbnail((MOST_SIDE, MOST_SIDE))
            upright.convert("RGBA").save(buffer, "PNG")
    except (OSError, ValueError, Image.DecompressionBombError):
        return b""
    return buffer.getvalue()


def _bars(prediction: "Prediction", head: str, row: int) -> str:
    guesses = prediction.ranked(head)[row][:SHOWN_GUESSES]
    bars = f"<table>{''.join(map(_bar, guesses))}</table>"
    if head not in prediction:
        return bars
    every = _numbers(_plain(prediction[head][row]))
    return f"{bars}<details><summary>every number</summary>{every}</details>"


def _bar(guess: "Guess") -> str:
    share = min(max(guess.score, 0), 1) if np.isfinite(guess.score) else 0
    filled = f"width: {share:.1%}; height: 100%; background: #4c8bf5"
    return (
        f'<tr><th scope="row">{_text(guess.label)}</th>'
        f'<td><div style="{_TRACK}"><div style="{filled}"></div></div></td>'
        f'<td style="{_NUMBER}">{guess.score:.4f}</td></tr>'
    )


def _numbers(value: Array) -> str:
    """Its last axis as columns, the others as lines."""
    if value.ndim == 0 or value.size == 1:
        return f"<div>{_text(value_text(value.item()))}</div>"
    if not value.size:
        return f"<div>{shape_text(value.shape)}, empty</div>"
    grid = value.reshape(-1, value.shape[-1])
    cut = grid.shape[0] > SHOWN_LINES or grid.shape[1] > SHOWN_COLUMNS
    lines = "".join(map(_line, grid[:SHOWN_LINES, :SHOWN_COLUMNS]))
    return f"<div>{shape_text(value.shape)}{' …' if cut else ''}</div><table>{lines}</table>"


def _line(values: Array) -> str:
    cells = (f'<td style="{_NUMBER}">{_text(value_text(each))}</td>' for each in values)
    return f"<tr>{''.join(cells)}</tr>"


def _block(name: str, content: str) -> str:
    return f"<div><div><small>{_text(name)}</small></div>{content}</div>"


def _over(under: str, pixels: Array, what: str, rendering: str = "auto") -> str:
    """Pixels laid over a picture, which alone shows while it is pointed at."""
    if not under:
        return _image(png_url(pixels), what)
    style = f"{_COVER}; image-rendering: {rendering}"
    cover = f'<img src="{png_url(pixels)}" alt="{what}" style="{style}">'
    return f'<div class="over" tabindex="0" style="position: relative">{under}{cover}</div>'


def _image(url: str, what: str, few_pixels: bool = False) -> str:
    """Few pixels are shown as such, more of them smoothly."""
    rendering = "pixelated" if few_pixels else "auto"
    style = f"display: block; width: {_WIDTH}px; max-width: none; image-rendering: {rendering}"
    return f'<img src="{url}" alt="{_text(what)}" style="{style}">'


def _plain(array: Array) -> Array:
    """numpy's own dtypes: it has no bfloat16."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _text(text: str) -> str:
    """Escaped, and no longer than SHOWN_CHARACTERS."""
    short = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return escape(short)
