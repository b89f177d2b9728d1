"""`sluice sign`, `sluice verify` and `sluice admit`: which versions somebody trusted stands for."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from service.up.signals import StopSignals
from service.versions import (
    REPOSITORY,
    Version,
    VersionError,
    find_model,
    find_version,
    of_one_version,
)
from sluice.wire.durable import sync, sync_tree
from sluice.wire.shared import open_lock
from sluice.wire.signed_files import NotAsSigned, Times, entries, open_file, times_of
from sluice.wire.signing import BadKey, SigningKey, TrustedKeys
from sluice.wire.versions import find_versions, model_directories

_ADMITTING, _REMOVING = ".admitting-", ".removing-"  # no number: no model server looks
_LOCK = ".admit.lock"
_LOOK_S = 0.5  # and what 100 MB take to read: within a second
_BLOCK = 1 << 20
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _keys_option(flag: str, read: Callable[[Path], Any], holds: str) -> Callable[..., Any]:
    """The file of keys that a command cannot do without, read."""

    def convert(_context: click.Context, _option: click.Parameter, file: Path) -> Any:
        try:
            return read(file)
        except BadKey as error:
            raise click.BadParameter(str(error)) from None

    path = click.Path(path_type=Path)
    return click.option(
        flag, type=path, callback=convert, metavar="FILE", required=True, help=holds
    )


_TRUSTED = _keys_option(
    "--trusted-keys",
    TrustedKeys,
    "The public keys (PEM) of those who may sign, one after the other.",
)


@click.command()
@of_one_version
@_keys_option("--key", SigningKey, "The private key (PEM).")
def sign(version: Version, key: SigningKey) -> None:
    """Sign VERSION of MODEL, or the newest, as it is now.

    `sluice train` and `sluice publish` do it with --sign, before the version appears.
    """
    try:
        key.sign(version.directory, version.model, version.number)
    except (NotAsSigned, OSError) as error:
        raise VersionError(str(error)) from None
    click.echo(f"{version.model} {version.number} is signed by the key {key.id}")


@click.command()
@click.argument("model", required=False)
@click.argument("version", type=int, required=False)
@_TRUSTED
@REPOSITORY
def verify(
    model: str | None, version: int | None, trusted_keys: TrustedKeys, model_repository: Path
) -> None:
    """Tell whether VERSION of MODEL is as somebody trusted signed it.

    Each of its versions where none is said, and of each model. Status 1 where one is not.
    """
    refused = 0
    for each in _chosen(model_repository, model, version):
        try:
            key_id = trusted_keys.check(each.directory, each.model, each.number)
            click.echo(f"{_called(each.model, each.number)} is as the key {key_id} signed it")
        except (NotAsSigned, BadKey, OSError) as error:
            refused += 1
            click.echo(f"{_called(each.model, each.number)} is refused: {error}")
    sys.exit(bool(refused))


def _chosen(repository: Path, model: str | None, version: int | None) -> Iterator[Version]:
    if model is not None and version is not None:
        yield find_version(repository, model, version)
        return
    named = {model: find_model(repository, model)} if model else model_directories(repository)
    for name, directory in named.items():
        for number, path in find_versions(directory).items():
            yield Version(name, number, path)


def _called(model: str, number: int) -> str:
    """In one line, whoever named it."""
    return f"{model if model.isprintable() else repr(model)} {number}"


@click.command()
@click.argument("incoming", type=_DIRECTORY)
@click.option("--model-repository", type=_DIRECTORY, required=True, help="Where they are served.")
@_TRUSTED
@click.option("--follow", is_flag=True, help="Go on looking, twice a second, until SIGTERM.")
def admit(incoming: Path, model_repository: Path, trusted_keys: TrustedKeys, follow: bool) -> None:
    """Copy signed versions from INCOMING to where a model server looks, and no others.

    For servers that do not look themselves, as TensorFlow Serving. INCOMING is laid out as a model
    repository is; whoever fills it needs no access to the other. What is refused is told once.
    Without --follow, status 1 where one was.
    """
    with closing(Doorman(incoming, model_repository, trusted_keys)) as doorman:
        if not follow:
            _look(doorman)
            sys.exit(doorman.refuses)
        with StopSignals() as stop:
            while not stop.wait(_LOOK_S):
                try:
                    _look(doorman)
                except VersionError as error:
                    click.echo(f"{error.message}; what is served stays", err=True)


def _look(doorman: "Doorman") -> None:
    """Raises VersionError where INCOMING cannot be listed."""
    try:
        for line in doorman.look():
            click.echo(line)
    except OSError as error:
        raise VersionError(str(error)) from None


class Doorman:
    """Lets versions from `incoming` into `repository` that `trusted` keys have signed; to be
    closed. Raises VersionError where another does, or nobody can write there."""

    def __init__(self, incoming: Path, repository: Path, trusted: TrustedKeys) -> None:
        self._incoming, self._repository, self._trusted = incoming, repository, trusted
        self._refused: dict[Path, tuple[str, Times | None]] = {}
        self._turn = _turn_in(repository)
        for kind in (_ADMITTING, _REMOVING):  # of one that was killed
            for left in repository.glob(f"*/{kind}*"):
                shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        os.close(self._turn)

    @property
    def refuses(self) -> bool:
        """Whether there is anything that was not let in."""
        return bool(self._refused)

    def look(self) -> Iterator[str]:
        """What becomes of each version that has come or gone since. Raises OSError where `incoming`
        cannot be listed; what is wrong with one version keeps no other out."""
        there: set[Path] = set()
        for name, directory in model_directories(self._incoming).items():
            versions = find_versions(directory)
            there |= set(versions.values())
            for number, path in versions.items():
                if not (self._repository / name / str(number)).exists():
                    yield from self._ask(name, number, path)
            yield from self._remove_others(name, versions.keys())
        self._refused = {path: why for path, why in self._refused.items() if path in there}

    def _ask(self, name: str, number: int, path: Path) -> Iterator[str]:
        seen = _times_or_none(path)
        said, at = self._refused.get(path, ("", None))
        if said and seen is not None and seen == at:
            return
        try:
            self._admit(name, number, path)
            self._refused.pop(path, None)
            yield f"{name} {number} is admitted"
        except (NotAsSigned, BadKey, OSError) as error:
            # A disk may have room again, though the version is the same.
            self._refused[path] = str(error), None if isinstance(error, OSError) else seen
            if str(error) != said:
                yield f"{_called(name, number)} is refused: {error}"

    def _admit(self, name: str, number: int, path: Path) -> None:
        self._trusted.check(path, name, number)
        model = self._repository / name
        beside = model / f"{_ADMITTING}{number}"
        shutil.rmtree(beside, ignore_errors=True)
        model.mkdir(parents=True, exist_ok=True)
        try:
            _copy(path, beside)
            # Once more: this copy nobody else writes to.
            self._trusted.check(beside, name, number)
            sync_tree(beside)
            beside.rename(model / str(number))
            sync(model)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _remove_others(self, name: str, wanted: Set[int]) -> Iterator[str]:
        """Unless none that is wanted is there: that is served which there is."""
        model = self._repository / name
        admitted = find_versions(model) if model.is_dir() else {}
        if not admitted.keys() & wanted:
            return
        for number in admitted.keys() - wanted:
            gone = model / f"{_REMOVING}{number}"
            shutil.rmtree(gone, ignore_errors=True)
            admitted[number].rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            yield f"{name} {number} is removed"


def _turn_in(repository: Path) -> int:
    """What keeps others out until it is closed, as they would give its name to what this one has
    begun to copy. Raises VersionError."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        turn = open_lock(repository / _LOCK)
    except OSError as error:
        raise VersionError(str(error)) from None
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(turn)
        raise VersionError(f"another sluice admit is at work in {repository}") from None
    except OSError:  # a file system without locks: as good as it gets
        pass
    return turn


def _copy(version: Path, copy: Path) -> None:
    """Files and directories alone, and such as every model server may read."""
    copy.mkdir()
    for name, is_directory in entries(version):
        if is_directory:
            (copy / name).mkdir()
            continue
        with open_file(version / name) as source, (copy / name).open("xb") as target:
            shutil.copyfileobj(source, target, _BLOCK)


def _times_or_none(version: Path) -> Times | None:
    try:
        return times_of(version)
    except (NotAsSigned, OSError):
        return None
