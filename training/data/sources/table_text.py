"""A table as spreadsheets of every country write it -> rows by column.

The csv module reads one dialect that it is told, and its Sniffer takes the commas of a sentence for
columns: here the header that is expected says which separator it is.
"""

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.sources.tree import shown
from training.errors import DataError

_SEPARATORS = ",;\t|"
_MARKS = {  # the longer one first: the shorter is its beginning
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_TEXT = {
    b"PK\x03\x04": "a workbook (or another zip file)",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel",
    b"%PDF": "a PDF file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x1f\x8b": "a gzip file",
}


@dataclass(frozen=True)
class Row:
    """line: in the file, from 1. values: by column, without spaces around them.

    >>> Row(2, {"image": "1.png", "label": "cat"})["label"]
    'cat'
    """

    line: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]


def read_rows(path: Path, wanted: Sequence[str]) -> list[Row]:
    r"""Those that are not empty, with the `wanted` columns at least.

    Raises DataError for what is no text, no UTF-8 or UTF-16, or lacks one of them somewhere.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile() as table:
    ...     _ = Path(table.name).write_bytes(codecs.BOM_UTF8 + b"image;label\r\n1.png;cat\r\n")
    ...     read_rows(Path(table.name), ["image", "label"])
    [Row(line=2, values={'image': '1.png', 'label': 'cat'})]
    """
    text, separator = _without_separator_line(_decode(path))
    separator = separator or _separator_of(text, wanted)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _columns(header, wanted, path)
        return [
            _row(path, reader.line_num, fields, header, columns)
            for fields in reader
            if any(field.strip() for field in fields)
        ]
    except csv.Error as error:
        raise DataError(f"{shown(path)}, line {reader.line_num}: {error}") from error


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    for start, what in _NO_TEXT.items():
        if raw.startswith(start):
            raise DataError(
                f"{shown(path)} is {what}: expected a table as text; in a spreadsheet, "
                f'"Save as", "CSV UTF-8"'
            )
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
    if encoding is None and raw[1:2] == b"\0":
        encoding = "utf-16-le"
    try:
        return raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{shown(path)}, line {line}: not UTF-8 text ({raw[error.start : error.end]!r}). Save "
            f'it as "CSV UTF-8" in a spreadsheet, or convert it: iconv -f WINDOWS-1252 -t UTF-8'
        ) from error


def _without_separator_line(text: str) -> tuple[str, str]:
    """Excel's own first line, `sep=;`, names the separator; "" where there is none."""
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep=") and len(first.rstrip("\r")) == len("sep=;"):
        return rest, first[len("sep=")]
    return text, ""


def _separator_of(text: str, wanted: Sequence[str]) -> str:
    """The one that finds the most of the wanted columns in the header."""

    def found(separator: str) -> int:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        return len({name.strip().casefold() for name in header} & {*wanted})

    return max(_SEPARATORS, key=found)


def _columns(header: Sequence[str], wanted: Sequence[str], path: Path) -> dict[str, int]:
    """Where each wanted column is, whatever the case of its name."""
    places = {name.casefold(): place for place, name in reversed([*enumerate(header)])}
    missing = [name for name in wanted if name not in places]
    if missing:
        raise DataError(
            f"{shown(path)} has the columns {', '.join(header) or '(none)'}: expected "
            f"{', '.join(wanted)}; {', '.join(missing)} missing"
        )
    return {name: places[name] for name in wanted}


def _row(
    path: Path, line: int, fields: Sequence[str], header: Sequence[str], columns: dict[str, int]
) -> Row:
    if any(field.strip() for field in fields[len(header) :]):
        raise DataError(
            f"{shown(path)}, line {line}: {len(fields)} values for {len(header)} columns; a value "
            f'with a separator in it must be in quotes, "so, to say"'
        )
    values = {
        name: fields[place].strip() if place < len(fields) else ""
        for name, place in columns.items()
    }
    if empty := [name for name, value in values.items() if not value]:
        raise DataError(f"{shown(path)}, line {line}: {', '.join(empty)} missing")
    return Row(line, values)


def parse_number(text: str) -> float:
    """With a point or, as much of the world writes it, a comma. Raises ValueError.

    >>> parse_number("0,5"), parse_number("0.5")
    (0.5, 0.5)
    """
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    return float(text)
