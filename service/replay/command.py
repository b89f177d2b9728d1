"""`sluice replay`: ask captured requests of two versions, and count the answers that change."""

import math
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import click

from service.captures import Captured, Captures, NoCaptures
from service.refusals import WrongUsage
from service.replay.changes import Tolerance, changes
from service.replay.report import as_page, as_text
from service.replay.sides import Away, BadSide, Place, Side, ask_both
from service.replay.summary import Case, Summary

CHANGED = 1  # the exit status where answers have changed, as `diff` has it
FAILED = 2


class _Number(click.FloatRange):
    """In its bounds, which NaN is not out of, and finite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return found


class CannotReplay(click.ClickException):
    """There is nothing to compare, or not all was, in one line."""

    exit_code = FAILED


MODEL_SERVER = click.option(
    "--model-server",
    "address",
    metavar="HOST:PORT",
    envvar="SLUICE_MODEL_SERVER",
    default="127.0.0.1:8500",
    show_default=True,
    help="Where versions are asked, over gRPC: a model server, or a gateway [SLUICE_MODEL_SERVER].",
)
API_KEY = click.option(
    "--api-key",
    envvar="SLUICE_API_KEY",
    help="For gateways that ask for one [SLUICE_API_KEY].",
)


@click.command()
@click.argument("capture", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--from", "before", metavar="SIDE", required=True, help="Whose answers are right so far."
)
@click.option("--to", "after", metavar="SIDE", required=True, help="Whose answers are compared.")
@MODEL_SERVER
@API_KEY
@click.option("--model", help="Only requests of this model.")
@click.option("--limit", type=click.IntRange(1), help="No more than the first so many requests.")
@click.option(
    "--tolerance",
    "score",
    type=_Number(0),
    default=Tolerance().score,
    show_default=True,
    help="How far a score may be off, or any other number as a share of the largest beside it.",
)
@click.option(
    "--overlap",
    type=_Number(0, 1),
    default=Tolerance().overlap,
    show_default=True,
    help="How much of two masks is the same at the least: intersection over union.",
)
@click.option("--timeout-s", type=_Number(0, min_open=True), default=30.0, show_default=True)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write a page with the worst cases and their pictures there.",
)
@click.pass_context
def replay(
    context: click.Context,
    capture: Path,
    before: str,
    after: str,
    address: str,
    api_key: str | None,
    model: str | None,
    limit: int | None,
    score: float,
    overlap: float,
    timeout_s: float,
    report: Path | None,
) -> None:
    """Ask the requests in CAPTURE, a file or a directory of them, of two versions.

    A SIDE is VERSION, LABEL, HOST:PORT, HOST:PORT/VERSION or HOST:PORT/LABEL. Every answer that has
    changed is counted by kind. The exit status is 0 where none has, 1 where some have, 2 where
    there was nothing to compare, or a SIDE could not be asked any more.
    """
    try:
        places = Place.read(before, address), Place.read(after, address)
    except BadSide as error:
        raise WrongUsage(str(error)) from None
    if report and not report.parent.is_dir():
        raise WrongUsage(f"{report}: there is no directory {report.parent}")
    tolerance = Tolerance(score, overlap)
    try:
        captures = Captures(capture)
        wanted = islice(_of(captures, model), limit)
        with (
            closing(Side(places[0], api_key, timeout_s)) as one,
            closing(Side(places[1], api_key, timeout_s)) as other,
        ):
            summary = compare(wanted, one, other, tolerance)
    except NoCaptures as error:
        raise CannotReplay(str(error)) from None
    for fault in captures.faults:
        click.echo(fault, err=True)
    if not summary.requests:
        nothing = f"{capture} holds no request" + (f" of {model}" if model else "")
        raise CannotReplay(summary.why_left or nothing)
    click.echo(as_text(summary))
    if report:
        _write(report, as_page(summary, *places, tolerance, str(capture)))
    if summary.left:
        raise CannotReplay(f"{summary.left:,} requests were not compared: {summary.why_left}")
    context.exit(CHANGED if summary.changed else 0)


def _write(report: Path, page: str) -> None:
    try:
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CannotReplay(f"{report} cannot be written: {error.strerror}") from None
    click.echo(f"The worst cases are in {report}")


def compare(
    captures: Iterator[Captured], before: Side, after: Side, tolerance: Tolerance
) -> Summary:
    """Both sides' answers to every request, as far as there is somebody to ask."""
    summary = Summary()
    for captured in captures:
        try:
            was, now = ask_both(captured.logged, before, after, summary.requests)
        except Away as error:
            where = f"{captured.file.name}, record {captured.number}"
            summary.left = 1 + sum(1 for _ in captures)
            summary.why_left = f"{error} ({where}, was the first of them)"
            break
        summary.add(Case(captured, was, now, changes(was, now, tolerance)))
    return summary


def _of(captures: Captures, model: str | None) -> Iterator[Captured]:
    return (each for each in captures if model in (None, each.logged.model.name))
