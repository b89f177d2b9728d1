"""A CSV file of image paths and targets, for recipes of several inputs or heads.

The header names the inputs and the heads of the recipe's task, as in `left,right,label`. Paths
are relative to the file.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.wire.tensors import Array
from training.data.dataset import Dataset, Split
from training.data.heads import Classes, Head, Number
from training.data.sources.folder import DEFAULT_SIDE
from training.data.sources.images import Example, read_parts
from training.errors import DataError
from training.recipes import Recipe

_Row = Mapping[str, str]


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
    rows = _read_rows(data, columns)
    heads, targets = _parsed(rows, columns, data)
    side = recipe.image_size or DEFAULT_SIDE
    examples = [
        Example(
            "|".join(row[name] for name in columns.inputs),
            {name: data.parent / row[name] for name in columns.inputs},
            row[columns.classes[0]],
        )
        for row in rows
    ]
    parts = read_parts(examples, (side, side, recipe.channels), data, workspace)
    row_of = {example.key: row for row, example in enumerate(examples)}
    splits = {}
    for part, (images, kept) in parts.items():
        mine = np.array([row_of[example.key] for example in kept], np.int64)
        splits[part] = Split(images, {name: values[mine] for name, values in targets.items()})
    return Dataset(**splits, heads=heads, origin=f"the images named in {data.name}")


def _read_rows(data: Path, columns: _Columns) -> list[_Row]:
    wanted = (*columns.inputs, *columns.classes, *columns.numbers)
    with data.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{data} has the columns {', '.join(reader.fieldnames or ())}: "
                f"expected {', '.join(wanted)}; {', '.join(missing)} missing"
            )
        rows: list[_Row] = [*reader]
    if len(rows) < _FEWEST:
        raise DataError(f"{data} has {len(rows)} rows: expected three at least")
    for number, row in enumerate(rows, start=2):  # 1 is the header
        empty = [name for name in wanted if not row[name]]
        if empty:
            raise DataError(f"{data}, line {number}: {', '.join(empty)} missing")
    return rows


def _parsed(
    rows: Sequence[_Row], columns: _Columns, data: Path
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


def _class_labels(rows: Sequence[_Row], columns: _Columns, data: Path) -> tuple[str, ...]:
    """In alphabetical order; for a total, the numbers from 0 on."""
    found = {row[name] for row in rows for name in columns.classes}
    if len(found) < 2:
        raise DataError(f"{data} has one class only, {next(iter(found))!r}: expected two at least")
    if not columns.total:
        return tuple(sorted(found))
    if not all(label.isdecimal() for label in found):
        raise DataError(
            f"{data}: {', '.join(columns.classes)} are added up, so they must be "
            f"numbers from 0 on, not {sorted(found)[-1]!r}"
        )
    return tuple(str(number) for number in range(max(map(int, found)) + 1))


def _as_numbers(rows: Sequence[_Row], name: str, data: Path) -> Array:
    for number, row in enumerate(rows, start=2):  # 1 is the header
        try:
            float(row[name])
        except ValueError:
            raise DataError(
                f"{data}, line {number}: {name} must be a number, not {row[name]!r}"
            ) from None
    return np.array([float(row[name]) for row in rows], np.float32)
