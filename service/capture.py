"""`sluice capture show|warmup`: what a gateway has captured, and warm-up files made of it."""

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from service.captures import Captured, Captures, NoCaptures
from service.versions import Version, of_one_version
from service.warmups import NothingFits, write_warmup
from sluice.client.tables import table
from sluice.wire.contract import MAX_WARMUP_RECORDS
from sluice.wire.saved_model import BadSavedModel
from sluice.wire.signed_files import SIGNED_FILE
from sluice.wire.versions import why_no_saved_model

RECORDS = 100
_CAPTURE = click.argument("captures", metavar="CAPTURE", type=click.Path(path_type=Path))


@dataclass
class _Seen:
    """What has been seen of one signature."""

    requests: int = 0
    rows: int = 0
    size: int = 0
    first: float = math.inf
    last: float = 0

    def add(self, one: Captured) -> None:
        self.requests += 1
        self.rows += one.logged.rows
        self.size += one.size
        self.first = min(self.first, one.logged.seconds)
        self.last = max(self.last, one.logged.seconds)

    def cells(self) -> list[str]:
        numbers = self.requests, self.rows, self.size
        return [*(f"{number:,}" for number in numbers), _time(self.first), _time(self.last)]


class CaptureError(click.ClickException):
    """What cannot be done with captures, in one line."""


@click.group()
def capture() -> None:
    """Look at captured requests (SLUICE_CAPTURE_DIR), and make warm-up files of them."""


@capture.command()
@_CAPTURE
def show(captures: Path) -> None:
    """List what is in CAPTURE, a directory or a file: which requests, how many, and when."""
    found = _open(captures)
    seen: dict[tuple[str, ...], _Seen] = defaultdict(_Seen)
    for each in found:
        model = each.logged.model
        version = "-" if model.version is None else str(model.version)
        seen[model.name, version, each.logged.signature].add(each)
    if seen:
        header = ("model", "version", "signature", "requests", "rows", "bytes", "first", "last")
        click.echo(table(header, [[*what, *seen[what].cells()] for what in sorted(seen)]))
    _tell_faults(found)
    if not seen:
        raise CaptureError(f"{captures} holds no request")


@capture.command()
@_CAPTURE
@of_one_version
@click.option(
    "--records",
    type=click.IntRange(1, MAX_WARMUP_RECORDS),
    default=RECORDS,
    show_default=True,
    help="How many requests it gets at the most.",
)
def warmup(captures: Path, version: Version, records: int) -> None:
    """Make requests in CAPTURE the warm-up of VERSION of MODEL, or of the newest.

    The model server runs them before the version takes traffic. One that has loaded it already does
    not look again: prepare a version before it is served.
    """
    directory = version.directory
    found = _open(captures)
    try:
        if reason := why_no_saved_model(directory):
            raise CaptureError(reason)
        written = write_warmup(found, version.model, directory, records)
    except (NothingFits, BadSavedModel) as error:
        _tell_faults(found)
        raise CaptureError(str(error)) from None
    except OSError as error:
        raise CaptureError(f"{error.filename}: {error.strerror}") from None
    _tell_faults(found)
    for reason, count in written.passed_over.most_common():
        click.echo(f"{count} passed over: {reason}", err=True)
    if (directory / SIGNED_FILE).exists():
        click.echo(f"{directory} is no longer as it was signed: sluice sign it again", err=True)
    before = f", and {written.kept} that it had" if written.kept else ""
    click.echo(f"{written.file}: {written.chosen} of {written.fitting:,} requests{before}")


def _open(path: Path) -> Captures:
    try:
        return Captures(path)
    except NoCaptures as error:
        raise CaptureError(str(error)) from None
    except OSError as error:
        raise CaptureError(f"{path} cannot be read ({error.strerror})") from None


def _tell_faults(captures: Captures) -> None:
    for fault in captures.faults:
        click.echo(fault, err=True)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else "-"
