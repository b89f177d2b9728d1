"""`sluice sign`, `sluice verify` and `sluice admit`: which versions somebody trusted stands for."""

import shutil
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import click

from service.up.signals import StopSignals
from service.versions import REPOSITORY, VersionError, find_version
from sluice.wire.signed_files import NotAsSigned, Times, times_of
from sluice.wire.signing import BadKey, SigningKey, TrustedKeys
from sluice.wire.versions import find_versions, model_directories, number_of

_ADMITTING, _REMOVING = ".admitting-", ".removing-"  # no number: no model server looks
_LOOK_S = 1.0
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _signing_key(_context: click.Context, _option: click.Parameter, file: Path) -> SigningKey:
    try:
        return SigningKey(file)
    except BadKey as error:
        raise click.BadParameter(str(error)) from None


def _trusted_keys(_context: click.Context, _option: click.Parameter, file: Path) -> TrustedKeys:
    try:
        return TrustedKeys(file)
    except BadKey as error:
        raise click.BadParameter(str(error)) from None


_TRUSTED = click.option(
    "--trusted-keys",
    "trusted",
    type=click.Path(path_type=Path),
    callback=_trusted_keys,
    metavar="FILE",
    required=True,
    help="The public keys (PEM) of those who may sign, one after the other.",
)


@click.command()
@click.argument("model")
@click.argument("version", type=int, required=False)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    callback=_signing_key,
    metavar="FILE",
    required=True,
    help="The private key (PEM).",
)
@REPOSITORY
def sign(model: str, version: int | None, key: SigningKey, model_repository: Path) -> None:
    """Sign VERSION of MODEL, or the newest, as it is now.

    `sluice train` and `sluice publish` do it with --sign, before the version appears.
    """
    directory = find_version(model_repository, model, version)
    number = number_of(directory)
    assert number is not None
    try:
        key.sign(directory, model, number)
    except (NotAsSigned, OSError) as error:
        raise VersionError(str(error)) from None
    click.echo(f"{model} {number} is signed by the key {key.id}")


@click.command()
@click.argument("model", required=False)
@click.argument("version", type=int, required=False)
@_TRUSTED
@REPOSITORY
def verify(
    model: str | None, version: int | None, trusted: TrustedKeys, model_repository: Path
) -> None:
    """Tell whether VERSION of MODEL is as somebody trusted signed it.

    Each of its versions where none is said, and of each model. Status 1 where one is not.
    """
    refused = 0
    for path in _chosen(model_repository, model, version):
        name, number = path.parent.name, number_of(path)
        assert number is not None
        try:
            key_id = trusted.check(path, name, number).key_id
            click.echo(f"{name} {number} is as the key {key_id} signed it")
        except (NotAsSigned, BadKey, OSError) as error:
            refused += 1
            click.echo(f"{name} {number} is refused: {error}")
    sys.exit(bool(refused))


def _chosen(repository: Path, model: str | None, version: int | None) -> list[Path]:
    if version is not None:
        return [find_version(repository, str(model), version)]
    if model is not None:
        directories = [find_version(repository, model, None).parent]
    else:
        directories = [*model_directories(repository).values()]
    return [path for each in directories for path in find_versions(each).values()]


@click.command()
@click.argument("incoming", type=_DIRECTORY)
@click.option("--model-repository", type=_DIRECTORY, required=True, help="Where they are served.")
@_TRUSTED
@click.option("--follow", is_flag=True, help="Go on looking, every second, until SIGTERM.")
def admit(incoming: Path, model_repository: Path, trusted: TrustedKeys, follow: bool) -> None:
    """Copy signed versions from INCOMING to where a model server looks, and no others.

    For servers that do not look themselves, as TensorFlow Serving. INCOMING is laid out as a model
    repository is; whoever fills it needs no access to the other. What is refused is told once.
    """
    doorman = Doorman(incoming, model_repository, trusted)
    if not follow:
        _look(doorman)
        return
    with StopSignals() as stop:
        while not stop.wait(_LOOK_S):
            try:
                _look(doorman)
            except VersionError as error:
                click.echo(f"{error.message}; what is served stays", err=True)


def _look(doorman: "Doorman") -> None:
    """Raises VersionError where a directory cannot be read or written."""
    try:
        for line in doorman.look():
            click.echo(line)
    except (OSError, shutil.Error) as error:
        raise VersionError(str(error)) from None


class Doorman:
    """Lets versions from `incoming` into `repository` that `trusted` keys have signed."""

    def __init__(self, incoming: Path, repository: Path, trusted: TrustedKeys) -> None:
        self._incoming, self._repository, self._trusted = incoming, repository, trusted
        self._refused: dict[Path, tuple[str, Times | None]] = {}

    def look(self) -> Iterator[str]:
        """What becomes of each version that has come or gone since. Raises OSError."""
        for name, directory in model_directories(self._incoming).items():
            there = find_versions(directory)
            for number, path in there.items():
                if not (self._repository / name / str(number)).exists():
                    yield from self._ask(name, number, path)
            yield from self._remove_others(name, there.keys())

    def _ask(self, name: str, number: int, path: Path) -> Iterator[str]:
        seen = _times_or_none(path)
        said, at = self._refused.get(path, ("", None))
        if said and seen is not None and seen == at:
            return
        try:
            self._admit(name, number, path)
            self._refused.pop(path, None)
            yield f"{name} {number} is admitted"
        except (NotAsSigned, BadKey) as error:
            self._refused[path] = str(error), seen
            if str(error) != said:
                yield f"{name} {number} is refused: {error}"

    def _admit(self, name: str, number: int, path: Path) -> None:
        self._trusted.check(path, name, number)
        model = self._repository / name
        beside = model / f"{_ADMITTING}{number}"
        shutil.rmtree(beside, ignore_errors=True)
        model.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copytree(path, beside, symlinks=True)
            # Once more: this copy nobody else writes to.
            self._trusted.check(beside, name, number)
            beside.rename(model / str(number))
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
            admitted[number].rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            yield f"{name} {number} is removed"


def _times_or_none(version: Path) -> Times | None:
    try:
        return times_of(version)
    except (NotAsSigned, OSError):
        return None
