"""`sluice publish`: what the user says on the command line, and is asked where they did not."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from service.refusals import training_refusals
from sluice.wire.contract import OPTIMIZE

# Of `sluice train` too.
MODEL_REPOSITORY = click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False),
    show_default=True,
    default=Path("model_repository"),
    help="Directory of MODEL/VERSION/ directories.",
)
ALLOW_BREAKING = click.option(
    "--allow-breaking",
    is_flag=True,
    help="Publish even if the signatures break those of the version before.",
)
SIGN = click.option(
    "--sign",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KEY",
    help="File of the private key (PEM) that signs the version.",
)

_MODES = "raw, scale01, scale11, imagenet-caffe, imagenet-torch"


_NUMBERED = re.compile(r"(\d+)\s*[,;\t]\s*(.+)")  # a line of a table


class BadLabels(ValueError):
    """What is wrong with the file, and what was expected."""


def _pairs(
    _context: click.Context, _option: click.Parameter, given: Sequence[str]
) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, equals, kind in pairs:
        if not (name and equals and kind):
            raise click.BadParameter(f"expected NAME=KIND, got {name}{equals}{kind}")
    return {name: kind for name, _, kind in pairs}


def _size(
    _context: click.Context, _option: click.Parameter, given: str | None
) -> tuple[int, int] | None:
    """`224`, `224,320` or `224x320`: height, width."""
    if given is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}([x,][1-9]\d{0,4})?", given):
        raise click.BadParameter(f"expected HEIGHT,WIDTH in pixels, got {given!r}")
    height, *width = (int(side) for side in re.split("[x,]", given))
    return height, width[0] if width else height


def _labels(
    _context: click.Context, _option: click.Parameter, given: str | None
) -> list[str] | None:
    """A file that names them, or the labels themselves, in the order of the output."""
    if given is None:
        return None
    if Path(given).exists():
        try:
            return read_labels(Path(given))
        except BadLabels as error:
            raise click.BadParameter(str(error)) from error
    if "," not in given:
        raise click.BadParameter(f"{given!r} is no file, and no labels separated by commas")
    return [label.strip() for label in given.split(",")]


def read_labels(file: Path) -> list[str]:
    """The names in the order of the output. Raises BadLabels.

    A line each, after its number and a comma where all have one; or in a `.json` file a list of
    names, or an object, of names by number or, as Keras' `class_indices` are, numbers by name.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     _ = file.write('{"dog": 1, "cat": 0}')
    ...     file.flush()
    ...     read_labels(Path(file.name))
    ['cat', 'dog']
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadLabels(
            f"{file} is no UTF-8 text (byte {error.start}): save it as UTF-8, one label on each "
            f"line"
        ) from error
    except OSError as error:
        raise BadLabels(
            f"{file} cannot be read ({error.strerror}): expected a file of one label on each line"
        ) from error
    if file.suffix.lower() == ".json":
        return _in_order(file, text)
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise BadLabels(f"{file} is empty: expected one label on each line")
    rows = [each for line in found if (each := _NUMBERED.fullmatch(line))]
    numbered = {each[1]: each[2] for each in rows}
    return (_by_number(numbered) if len(numbered) == len(found) else []) or found


def _in_order(file: Path, text: str) -> list[str]:
    expected = 'expected ["cat", "dog"], {"0": "cat", "1": "dog"} or {"cat": 0, "dog": 1}'
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLabels(f"{file} is no JSON ({error}): {expected}") from error
    names = _by_number(found) if isinstance(found, dict) else found
    if not (isinstance(names, list) and names and all(isinstance(each, str) for each in names)):
        raise BadLabels(f"{file} does not name classes 0, 1, 2 and so on: {expected}")
    return names


def _by_number(found: dict[str, Any]) -> list[Any]:
    """[] where they are not numbered from 0 without a gap."""
    if all(type(number) is int for number in found.values()):
        by_number = {str(number): name for name, number in found.items()}
        found = by_number if len(by_number) == len(found) else {}
    numbers = [str(number) for number in range(len(found))]
    return [found[number] for number in numbers] if {*numbers} == {*found} else []


def _preprocess(_context: click.Context, _option: click.Parameter, given: str | None) -> Any:
    """A mode's name, or the function that module:function names."""
    if given is None or ":" not in given:
        return given
    from training.adopting.loading import import_module
    from training.errors import CannotAdopt

    module_name, _, function = given.rpartition(":")
    try:
        found = getattr(import_module(module_name), function, None)
    except CannotAdopt as error:
        raise click.BadParameter(str(error)) from error
    if not callable(found):
        raise click.BadParameter(f"{module_name} has no function {function!r}")
    return found


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@MODEL_REPOSITORY
@click.option("--name", help="Name to publish under; the file's own if not given.")
@click.option(
    "--labels",
    callback=_labels,
    metavar="FILE|A,B,C",
    help="The classes' names in the order of the output: a file with one "
    "on each line, a .json file, or separated by commas.",
)
@click.option(
    "--preprocess",
    callback=_preprocess,
    metavar="MODE",
    help="What the model was trained on, made of pixels of 0..255 inside the published graph: "
    f"{_MODES}, or module:function of your own.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=_pairs,
    metavar="NAME=KIND",
    help="What an input is, where it is not what its shape says: image, numbers or text.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    callback=_pairs,
    metavar="NAME=KIND",
    help="What an output is, where it is not what it is taken for: picture, mask or numbers.",
)
@click.option(
    "--resize",
    callback=_size,
    metavar="HEIGHT,WIDTH",
    help="The size that image files are brought to, where the model takes any.",
)
@click.option(
    "--sample",
    "samples",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="An image, a folder of them, or an .npz file, to try the model on; may be given again. "
    "A folder with a folder of images for each label is measured on too.",
)
@click.option(
    "--explain-layer",
    default="",
    metavar="LAYER",
    help="The layer whose maps `explain` looks at; else a last convolution, or tokens.",
)
@click.option(
    "--optimize",
    type=click.Choice(OPTIMIZE),
    default="none",
    show_default=True,
    help="Publish more graphs, where they answer as the first does: bf16, in bfloat16 for CPUs; "
    "gpu, in half precision for GPUs.",
)
@click.option(
    "--optimize-drop",
    type=click.FloatRange(0, 100),
    default=0.2,
    show_default=True,
    help="Points, of 100, by which such a graph may be worse on labelled samples.",
)
@click.option(
    "--optimize-margin",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="How far ahead, of 1, a class may be where such a graph names another.",
)
@click.option(
    "--optimize-constants",
    type=click.IntRange(0, 1_000_000),
    default=0,
    show_default=True,
    metavar="MB",
    help="Memory that a model server may hold more for bf16's weights as constants, where they "
    "make it faster at batch 1.",
)
@click.option(
    "--batch-encoded",
    type=click.IntRange(0, 1024),
    default=0,
    show_default=True,
    metavar="ROWS",
    help="Rows of several calls of `encoded` that the network takes at once; 0: of one alone.",
)
@click.option(
    "--custom-objects",
    metavar="MODULE",
    help="The module, by name or file, that defines the model's own layers and functions.",
)
@click.option(
    "--allow-code", is_flag=True, help="Run the code that Lambda layers keep in the file."
)
@ALLOW_BREAKING
@click.option(
    "--novelty/--no-novelty",
    default=True,
    show_default=True,
    help="Say of each picture how unlike the samples it is, where 200 and more are given.",
)
@click.option(
    "--allow-worse",
    is_flag=True,
    help="Publish even if the version before is better on the same labelled samples.",
)
@SIGN
def publish(model: Path, **options: Any) -> None:
    """Publish MODEL, a .keras or .h5 file or a SavedModel directory, as the next version.

    What the model does not say and the options do not either is asked on a terminal.
    """
    import training

    with training_refusals():
        version = training.publish(
            model, ask=_ask, say=lambda line: click.echo(f"  {line}"), **options
        )
    click.echo(f"Published {version}")
    click.echo(f"Serve it:  sluice up --model-repository {version.parent.parent}")


def _ask(what: str, choices: Sequence[str]) -> str | None:
    """The answer of somebody at a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    answer: str = click.prompt(what, type=click.Choice(list(choices)), err=True)
    return answer
