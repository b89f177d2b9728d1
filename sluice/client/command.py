"""`sluice predict`: files to a running server, its answer as a table or as JSON."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from sluice.client import Client, ClientError, NotFound, Prediction, Unavailable
from sluice.client.tables import guess_lines, table, value_lines
from sluice.pictures.formats import EXPECTED, foreign, format_of
from sluice.wire.nearest import nearest_first
from sluice.wire.tensors import Array

DEFAULT_URL = "http://localhost:8080"
NPY = b"\x93NUMPY"


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--input",
    "named",
    multiple=True,
    metavar="NAME=VALUE|@FILE",
    callback=lambda _c, _p, given: [_name_and_value(each) for each in given],
    help="A row of an input by its name: JSON, or text; @ and a file; may be given again.",
)
@click.option(
    "--url",
    envvar="SLUICE_URL",
    default=DEFAULT_URL,
    show_default=True,
    help="http[s]://HOST:PORT of a gateway, or grpc[s]://HOST:PORT of a model server [SLUICE_URL].",
)
@click.option(
    "--api-key",
    envvar="SLUICE_API_KEY",
    help="For a server that asks for one; as a variable it is in no list of processes "
    "[SLUICE_API_KEY].",
)
@click.option(
    "--top-k", type=click.IntRange(1), default=1, show_default=True, help="Labels for each row."
)
@click.option("--version", type=click.IntRange(0), help="The newest if not given.")
@click.option("--label", help="A version's label.")
@click.option("--signature", help="`encoded` for images, `serving_default` else, if not given.")
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="Print every output as JSON.")
def predict(
    model: str,
    files: tuple[Path, ...],
    named: list[tuple[str, str]],
    url: str,
    api_key: str | None,
    top_k: int,
    as_json: bool,
    timeout_s: float,
    **options: Any,
) -> None:
    """Ask MODEL about FILEs: pictures, or .npy arrays, batch first.

    Several files are one batch of the model's only input. A model with more takes --input for
    each: --input photo=@cat.png --input age=[3]. An input that is given again has one row more.
    """
    rows, inputs = _inputs_of(files, named)
    try:
        with Client(url, timeout_s=timeout_s, api_key=api_key) as client:
            prediction = _ask(client, model, inputs, options)
    except Unavailable as error:
        raise click.ClickException(_one_line(error) + _how_to_start(url, error)) from None
    except (ClientError, ValueError) as error:
        raise click.ClickException(_one_line(error)) from None
    if as_json:
        click.echo(json.dumps(_document(prediction, rows, top_k), ensure_ascii=False))
    elif prediction.heads:
        click.echo(table(["file", "head", "label", "score"], guess_lines(prediction, top_k, rows)))
    else:
        click.echo(table(["output", "dtype", "shape", "values"], value_lines(prediction)))


def _ask(client: Client, model: str, inputs: Any, options: dict[str, Any]) -> Prediction:
    """The prediction; a model that is not there is answered with those that are, nearest first."""
    try:
        return client.predict(model, inputs, **options)
    except NotFound as error:
        try:
            known = client.models()
        except ClientError:  # gRPC has no list of models
            raise error from None
        if not known or model in known:
            raise
        listing = ", ".join(nearest_first(model, known))
        raise NotFound(
            f"There is no model {model!r} at the server; there are, nearest first: {listing}"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _how_to_start(url: str, error: Unavailable) -> str:
    """What to do where nobody answered; where a server did, its message says it."""
    if error.code and not url.startswith("grpc"):
        return ""
    return f"; is a server at {url}? Start one with `sluice up`, or say where it is with --url"


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise click.BadParameter(f"expected NAME=VALUE or NAME=@FILE, got {text!r}")
    return name, value


def _inputs_of(
    files: Sequence[Path], named: Sequence[tuple[str, str]]
) -> tuple[list[str], dict[str, Any] | Any]:
    """What each row is called, and the batch of the only input, or the batches by input: rows are
    called as the first of these has them."""
    if bool(files) == bool(named):
        raise click.UsageError("give FILEs, for a model's only input, or --input for each by name")
    if files:
        return _batch_of(files)
    given: dict[str, list[str]] = {}
    for name, value in named:
        given.setdefault(name, []).append(value)
    batches = {name: _rows_of(values) for name, values in given.items()}
    rows, _ = batches[named[0][0]]
    return rows, {name: batch for name, (_, batch) in batches.items()}


def _rows_of(values: Sequence[str]) -> tuple[list[str], Any]:
    """The rows of one input, each as it was typed: its names and the batch."""
    files = [Path(value[1:]) for value in values if value.startswith("@")]
    if files and len(files) < len(values):
        raise click.ClickException(f"{files[0]} is a file and other rows are none; give one kind")
    if files:
        return _batch_of(files)
    return list(values), [_typed(value) for value in values]


def _typed(value: str) -> Any:
    """JSON, or else text; text as bytes, as the client takes a str for a path."""
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return found.encode() if isinstance(found, str) else found


def _batch_of(files: Sequence[Path]) -> tuple[list[str], Any]:
    """What each row of the batch is called, and the batch: bytes, or an array of .npy files."""
    contents = [(file, _content(file)) for file in files]
    arrays = [
        (file, _array(file, content)) for file, content in contents if content.startswith(NPY)
    ]
    if not arrays:
        return [str(file) for file in files], [content for _, content in contents]
    if len(arrays) < len(files):
        raise click.ClickException(
            f"{arrays[0][0]} is an array and other files are images; give one kind at a time"
        )
    return _join(arrays)


def _join(arrays: Sequence[tuple[Path, Array]]) -> tuple[list[str], Array]:
    rows = [f"{file}[{row}]" for file, array in arrays for row in range(len(array))]
    try:
        return rows, np.concatenate([array for _, array in arrays])
    except ValueError as error:
        raise click.ClickException(f"The arrays cannot be joined to one batch: {error}") from None


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    if not (content.startswith(NPY) or format_of(content)):
        got = foreign(content)
        raise click.ClickException(
            f"{file}: expected {EXPECTED} or a .npy array" + (f", got {got}" if got else "")
        )
    return content


def _array(file: Path, content: bytes) -> Array:
    try:
        array: Array = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from None
    if not array.ndim:
        raise click.ClickException(f"{file}: expected an array of rows, got a single number")
    return array


def _document(prediction: Prediction, rows: Sequence[str], top_k: int) -> dict[str, Any]:
    """Outputs with a line for each row under `rows`, the others under `outputs`."""
    by_row = {name: array for name, array in prediction.items() if array.shape[:1] == (len(rows),)}
    return {
        "model": prediction.model,
        "version": prediction.version,
        "rows": [
            {
                "file": row,
                "labels": labels,
                "outputs": {name: _plain(array[index]) for name, array in by_row.items()},
            }
            for index, (row, labels) in enumerate(
                zip(rows, _labels(prediction, len(rows), top_k), strict=True)
            )
        ],
        "outputs": {
            name: _plain(array) for name, array in prediction.items() if name not in by_row
        },
    }


def _labels(prediction: Prediction, count: int, top_k: int) -> list[dict[str, Any]]:
    """For each row, by head, its best guesses."""
    ranked = {head: prediction.ranked(head) for head in prediction.heads}
    return [
        {
            head: [guess._asdict() for guess in guesses[row][:top_k]]
            for head, guesses in ranked.items()
        }
        for row in range(count)
    ]


def _plain(array: Any) -> Any:
    """Numbers, text and lists, as JSON has them."""
    values = array.tolist() if hasattr(array, "tolist") else array
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return values.decode(errors="replace") if isinstance(values, bytes) else values
