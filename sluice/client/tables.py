"""A prediction as text: columns of labels, or of the outputs' values."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from sluice.wire.contract import NOVELTY
from sluice.wire.signature import dtype_name, shape_text

if TYPE_CHECKING:
    from sluice.client.results import Prediction

SHOWN_VALUES = 8


def guess_lines(
    prediction: "Prediction", top_k: int, rows: Sequence[str] | None = None
) -> Iterator[list[str]]:
    """Row, head, label and score of the `top_k` best guesses, then the rows that are unlike the
    training images; `rows` is what each row is called, its number if it is not said.

    >>> import numpy as np
    >>> from sluice.client.results import Prediction
    >>> classes, scores = np.array([[b"3", b"8"]], object), np.array([[0.75, 0.25]])
    >>> outputs = {"label_classes": classes, "label_scores": scores}
    >>> list(guess_lines(Prediction(outputs, "digits", 1, "encoded"), 1, ["three.png"]))
    [['three.png', 'label', '3', '0.7500']]
    >>> outputs = {"novelty": np.float32([2.5]), **outputs}
    >>> list(guess_lines(Prediction(outputs, "digits", 1, "encoded"), 1))[1]
    ['0', 'novelty', 'unlike the training images', '2.5000']
    """
    for head in prediction.heads:
        ranked = prediction.ranked(head)
        for row, guesses in zip(rows or map(str, range(len(ranked))), ranked, strict=True):
            for guess in guesses[:top_k]:
                yield [row, head, guess.label, f"{guess.score:.4f}"]
    novelty = prediction.novelty
    if novelty is not None:
        for row, value in zip(rows or map(str, range(len(novelty))), novelty, strict=True):
            if value > 1:
                yield [row, NOVELTY, "unlike the training images", f"{value:.4f}"]


def value_lines(prediction: "Prediction") -> Iterator[list[str]]:
    """Name, dtype, shape and first values of every output.

    >>> import numpy as np
    >>> from sluice.client.results import Prediction
    >>> list(value_lines(Prediction({"y": np.float32([[2.5]])}, "affine", 1, "serving_default")))
    [['y', 'float32', '[1,1]', '2.5']]
    """
    for name, array in prediction.items():
        shown = " ".join(map(value_text, array.ravel()[:SHOWN_VALUES]))
        more = " ..." if array.size > SHOWN_VALUES else ""
        yield [name, dtype_name(array.dtype), shape_text(array.shape), shown + more]


def value_text(value: Any) -> str:
    """One number or text of an array, as people read it.

    >>> import numpy as np
    >>> value_text(np.float32(1 / 3)), value_text(b"red"), value_text(np.int64(7))
    ('0.333333', 'red', '7')
    """
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bytes):
        return plain.decode(errors="replace")
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces between.

    >>> print(table(["row", "label"], [["0", "cat"], ["1", "dog"]]))
    ROW  LABEL
    0    cat
    1    dog
    """
    cells = [[name.upper() for name in header], *lines]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in cells
    )
