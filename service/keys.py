"""`sluice keys new|list|revoke`: the file of API keys, written whole or not at all.

tomlkit keeps what people have written there, their comments and their order. It is imported where
it is used, as `sluice --help` looks at every command.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.gateway.access.access_list import AccessList, KeyEntry, read_access
from service.gateway.access.fields import BadAccessFile
from service.gateway.access.grant import OPERATIONS
from service.gateway.access.keys import ID_FORM, ID_IN_WORDS, digest_of, new_key
from service.gateway.dates import utc

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_FILE = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SLUICE_ACCESS_FILE",
    default=Path("access.toml"),
    show_default=True,
    help="The file of keys [SLUICE_ACCESS_FILE].",
)
_SPAN = re.compile(r"(\d{1,5})d")


class KeysError(click.ClickException):
    """What cannot be done with the file of keys, in one line."""


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys that the gateway knows (SLUICE_ACCESS_FILE)."""


@keys.command()
@click.argument("key_id", metavar="ID")
@_FILE
@click.option(
    "--model",
    "models",
    multiple=True,
    default=["*"],
    show_default=True,
    help="A model, or a pattern of their names; several times for several.",
)
@click.option(
    "--operation",
    "operations",
    multiple=True,
    type=click.Choice(OPERATIONS),
    default=OPERATIONS,
    show_default=True,
    help="What it may ask; several times for several.",
)
@click.option("--expires", metavar="90d|TIME", help="In so many days, or at 2027-01-01T00:00:00Z.")
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="NAME",
    help="A name of its client's certificate, as DNS:phone.acme.example, in place of a key that is "
    "shown; several times for several.",
)
@click.option("--note", default="", help="For those who read the file.")
def new(
    key_id: str,
    file: Path,
    expires: str | None,
    certificates: tuple[str, ...],
    note: str,
    **grant: Any,
) -> None:
    """Make a key called ID, and show it: once, as the file has only its SHA-256."""
    if not ID_FORM.fullmatch(key_id):
        raise click.UsageError(f"ID is {ID_IN_WORDS}")
    import tomlkit

    entry = tomlkit.table()
    key = "" if certificates else new_key(key_id)
    if key:
        entry["sha256"] = digest_of(key)
    else:
        entry["certificates"] = list(certificates)
    entry.update({name: list(values) for name, values in grant.items()})
    if expires:
        entry["expires"] = _time_of(expires)
    if note:
        entry["note"] = note

    def add(document: "TOMLDocument") -> None:
        known = document.setdefault("keys", tomlkit.table(is_super_table=True))
        if key_id in known:
            raise KeysError(f"{file} has a key {key_id!r} already; choose another id")
        known[key_id] = entry

    _change(file, add)
    if key:
        click.echo(key)
        click.echo(f"Written to {file}. This is the only time that the key is shown.", err=True)
    else:
        click.echo(f"Written to {file}: who shows such a certificate needs no key.", err=True)


@keys.command("list")
@_FILE
def list_(file: Path) -> None:
    """List the keys: who may ask what, and until when."""
    now = datetime.now(UTC).timestamp()
    rows = [("ID", "MODELS", "OPERATIONS", "EXPIRES", "STATE", "NOTE")]
    for key_id, entry in _read(file)[1].keys.items():
        grant = entry.grant
        operations = " ".join(each for each in OPERATIONS if each in grant.operations)
        expires = _shown(entry.expires)
        state = _state(entry, now)
        rows.append((key_id, " ".join(grant.models), operations, expires, state, entry.note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@keys.command()
@click.argument("key_id", metavar="ID")
@_FILE
def revoke(key_id: str, file: Path) -> None:
    """Refuse the key ID from now on; a running gateway does within a second."""

    def mark(document: "TOMLDocument") -> None:
        known = document.get("keys", {})
        if key_id not in known:
            there = ", ".join(known) or "none"
            raise KeysError(f"{file} has no key {key_id!r}; there are: {there}")
        known[key_id]["revoked"] = True

    _change(file, mark)
    click.echo(f"{key_id} is revoked in {file}")


def _change(file: Path, change: Callable[["TOMLDocument"], None]) -> None:
    """Read, change and replace the file, while no other command does. Raises KeysError."""
    import tomlkit

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.parent):
            document, _ = _read(file) if file.exists() else (tomlkit.document(), None)
            change(document)
            text = tomlkit.dumps(document)
            read_access(text)
            beside = file.with_name(f".{file.name}.{os.getpid()}")
            mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
            with open(beside, "w", opener=lambda path, flags: os.open(path, flags, mode)) as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)
    except BadAccessFile as error:
        raise KeysError(str(error)) from None
    except OSError as error:
        raise KeysError(f"{error.filename or file} cannot be written ({error.strerror})") from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _read(file: Path) -> tuple["TOMLDocument", AccessList]:
    import tomlkit

    try:
        text = file.read_text()
        access = read_access(text)
    except OSError as error:
        raise KeysError(f"{file} cannot be read ({error.strerror})") from None
    except (BadAccessFile, UnicodeDecodeError) as error:
        raise KeysError(f"{file}: {error}") from None
    return tomlkit.parse(text), access


def _time_of(text: str) -> datetime:
    """Of `90d`, counted from now, or of a time with its zone. Raises UsageError."""
    span = _SPAN.fullmatch(text)
    if span:
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=int(span[1]))
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    if given is None or given.tzinfo is None:
        raise click.UsageError(f"--expires: expected 90d or 2027-01-01T00:00:00Z, got {text!r}")
    return given


def _shown(expires: float) -> str:
    return "never" if expires == float("inf") else utc(expires)


def _state(entry: KeyEntry, now: float) -> str:
    if entry.revoked:
        return "revoked"
    return "expired" if now >= entry.expires else "good"
