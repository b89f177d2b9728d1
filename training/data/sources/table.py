"""A CSV file of image paths and targets, for recipes of several inputs or heads.

The header names the inputs and the heads of the recipe's task, as in `left,right,label`. Paths
are relative to the file.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np

from sluice.wire.tensors import Array
from training.data.dataset import Dataset, Split
from training.data.heads import Classes, Head, Number
from training.data.sources.folder import DEFAULT_SIDE
from training.data.sources.images import Example, read_parts
from training.data.sources.table_paths import find_file
from training.data.sources.table_text import Row, parse_number, read_rows
from training.data.sources.tree import check_case, counted, shown
from training.errors import DataError
from training.recipes import Recipe

_FEWEST = 3  # rows: one to train on, one to watch, one held out


@dataclass(frozen=True)
class _Columns:
    """classes: heads that share their labels; total: a head for the sum of their numbers."""

    inputs: tuple[str, ...]
    classes: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    total: str = ""


_COLUMNS = {
    "labels": _Columns(("image",), ("label",)),
    "views": _Columns(("left", "right"), ("label",)),
    "coverage": _Columns(("image",), ("label",), ("coverage",)),
    "sums": _Columns(("left", "right"), ("left_digit", "right_digit"), total="sum"),
}


def load(recipe: Recipe, data: Path, workspace: Path) -> Dataset:
    """Raises DataError."""
    if recipe.task not in _COLUMNS:
        raise DataError(
            f"recipe {recipe.name!r} takes no CSV file: its task, {recipe.task}, has "
            f"no targets that fit into a column"
        )
    columns = _COLUMNS[recipe.task]
    wanted = (*columns.inputs, *columns.classes, *columns.numbers)
    rows = read_rows(data, wanted)
    _check_agreement(rows, columns, data)
    if not rows:
        raise DataError(f"{shown(data)} has 0 rows: expected {_FEWEST} of each class at least")
    heads, targets = _parsed(rows, columns, data)
    _check_enough(rows, columns, data)
    examples = _examples(rows, columns, data)
    side = recipe.image_size or DEFAULT_SIDE
    parts = read_parts(examples, (side, side, recipe.channels), data, workspace)
    row_of = {example.key: row for row, example in enumerate(examples)}
    splits = {}
    for part, (images, kept) in parts.items():
        mine = np.array([row_of[example.key] for example in kept], np.int64)
        splits[part] = Split(images, {name: values[mine] for name, values in targets.items()})
    return Dataset(**splits, heads=heads, origin=f"the images named in {shown(data.name)}")


def _check_agreement(rows: Sequence[Row], columns: _Columns, data: Path) -> None:
    """An image may be named twice, and counts twice; by its path it stays in one part."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(_key(row, columns), row)
        if other.values != row.values:
            raise DataError(
                f"{shown(data)}: lines {other.line} and {row.line} name the same image and say "
                f"different things of it"
            )


def _check_enough(rows: Sequence[Row], columns: _Columns, data: Path) -> None:
    name = columns.classes[0]
    label, count = min(Counter(row[name] for row in rows).items(), key=itemgetter(1))
    if count < _FEWEST:
        raise DataError(
            f"{shown(data)} has {counted(count, 'row')} whose {name} is {label!r}: expected "
            f"{_FEWEST} of each at least; add some, or take it out"
        )


def _key(row: Row, columns: _Columns) -> str:
    return "|".join(row[name] for name in columns.inputs)


def _examples(rows: Sequence[Row], columns: _Columns, data: Path) -> list[Example]:
    """Raises DataError where none of the files is there."""
    examples = [
        Example(
            _key(row, columns),
            {name: find_file(row[name], data.parent) for name in columns.inputs},
            row[columns.classes[0]],
        )
        for row in rows
    ]
    if not any(path.is_file() for example in examples for path in example.files.values()):
        raise DataError(
            f"{shown(data)}, line {rows[0].line}: there is no file "
            f"{rows[0][columns.inputs[0]]!r}, nor one of any other line. Paths are relative to the "
            f"table, to {shown(data.parent.resolve())}/ here"
        )
    return examples


def _parsed(
    rows: Sequence[Row], columns: _Columns, data: Path
) -> tuple[dict[str, Head], dict[str, Array]]:
    labels = _class_labels(rows, columns, data)
    heads: dict[str, Head] = {name: Classes(labels) for name in columns.classes}
    targets: dict[str, Array] = {
        name: np.array([labels.index(row[name]) for row in rows], np.int64)
        for name in columns.classes
    }
    for name in columns.numbers:
        heads[name] = Number()
        targets[name] = _as_numbers(rows, name, data)
    if columns.total:
        heads[columns.total] = Classes(tuple(str(n) for n in range(2 * len(labels) - 1)))
        targets[columns.total] = np.sum([targets[name] for name in columns.classes], axis=0)
    return heads, targets


def _class_labels(rows: Sequence[Row], columns: _Columns, data: Path) -> tuple[str, ...]:
    """In alphabetical order; for a total, the numbers from 0 on."""
    found = {row[name] for row in rows for name in columns.classes}
    if len(found) < 2:
        raise DataError(
            f"{shown(data)} has one class only, {next(iter(found))!r}: expected two at least"
        )
    if not columns.total:
        check_case(sorted(found), data)
        return tuple(sorted(found))
    if not all(label.isdecimal() for label in found):
        raise DataError(
            f"{shown(data)}: {', '.join(columns.classes)} are added up, so they must be "
            f"numbers from 0 on, not {sorted(found)[-1]!r}"
        )
    return tuple(str(number) for number in range(max(map(int, found)) + 1))


def _as_numbers(rows: Sequence[Row], name: str, data: Path) -> Array:
    return np.array([_as_number(row, name, data) for row in rows], np.float32)


def _as_number(row: Row, name: str, data: Path) -> float:
    try:
        number = parse_number(row[name])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{shown(data)}, line {row.line}: {name} must be a number, not {row[name]!r}"
        )
    return number
