"""`sluice rollback`, `sluice rm` and `sluice label`: which version of a model is served.

A model server serves the highest number that it finds, so a version is taken out of service by a
name that is no number: `.withdrawn-4`. Renaming is atomic, costs nothing and can be undone.
"""

import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from sluice.wire.labels import label_fault, read_labels, write_labels
from sluice.wire.nearest import nearest
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Rollout
from sluice.wire.versions import (
    find_versions,
    survey,
    withdrawn_name,
    withdrawn_versions,
)

REPOSITORY = click.option(
    "--model-repository",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    show_default=True,
    default=Path("model_repository"),
    help="Directory of MODEL/VERSION/ directories.",
)

_UP = (
    "a running sluice up follows within seconds; where you write models.config yourself, say the "
    "same in its version_labels"
)


class VersionError(click.ClickException):
    """What cannot be done with a version, in one line."""


class Version(NamedTuple):
    """A version on disk, served or withdrawn."""

    model: str
    number: int
    directory: Path


def of_one_version(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command MODEL, VERSION (the newest that is served, if not said) and the repository to
    find it in; `command` gets it as `version`, a Version."""

    @click.argument("model")
    @click.argument("version", type=int, required=False)
    @REPOSITORY
    @functools.wraps(command)
    def find_and_run(
        model: str, version: int | None, model_repository: Path, **options: Any
    ) -> None:
        command(version=find_version(model_repository, model, version), **options)

    return find_and_run


@click.command()
@click.argument("model")
@click.argument("version", type=int, required=False)
@REPOSITORY
def rollback(model: str, version: int | None, model_repository: Path) -> None:
    """Serve VERSION of MODEL again, or the one before the newest.

    The versions after it are withdrawn, not deleted: rolling back to one of them brings it back.
    """
    directory = find_model(model_repository, model)
    for line in roll_back(directory, version):
        click.echo(line)


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@REPOSITORY
@click.option("--force", is_flag=True, help="Delete the newest version or a labelled one too.")
def rm(model: str, version: int, model_repository: Path, force: bool) -> None:
    """Delete VERSION of MODEL, served or withdrawn."""
    for line in remove(find_model(model_repository, model), version, force=force):
        click.echo(line)


@click.command()
@click.argument("model")
@click.argument("label", metavar="LABEL=VERSION")
@REPOSITORY
def label(model: str, label: str, model_repository: Path) -> None:
    """Let LABEL mean VERSION of MODEL: /v1/models/MODEL/labels/LABEL asks it. LABEL= takes it away.

    `sluice up` serves every labelled version beside the newest. Where you write models.config
    yourself, its version_labels say the same.
    """
    name, equals, number = label.partition("=")
    if not equals or (number and not number.isdigit()):
        raise click.UsageError(f"expected LABEL=VERSION, as in stable=3, got {label!r}")
    directory = find_model(model_repository, model)
    for line in set_label(directory, name, int(number) if number else None):
        click.echo(line)


def roll_back(directory: Path, version: int | None) -> list[str]:
    """What was done, in lines. Raises VersionError."""
    if _rollout(directory):
        raise VersionError(
            f"a rollout says which version of {directory.name} answers: sluice rollout abort "
            f"{directory.name} goes back to the one before"
        )
    served, withdrawn = find_versions(directory), withdrawn_versions(directory)
    if version is None:
        if len(served) < 2:
            raise VersionError(
                f"{directory.name} has no version before {max(served)}; withdrawn: "
                f"{_listed(withdrawn)}"
            )
        version = sorted(served)[-2]
    lines = []
    if version in withdrawn:
        withdrawn[version].rename(directory / str(version))
        lines.append(f"{directory.name} {version} is back")
    elif version not in served:
        raise _unknown(directory, version)
    # The lowest first: the newest stays in service until the last rename, which is the change.
    for number in sorted(number for number in served if number > version):
        served[number].rename(directory / withdrawn_name(number))
        lines.append(
            f"{directory.name} {number} is withdrawn; sluice rollback {directory.name} "
            f"{number} brings it back"
        )
    lines.append(
        f"{directory.name} {version} is the newest now; a running server takes it up "
        "within seconds, and answers from the other until it has"
    )
    return lines


def remove(directory: Path, version: int, *, force: bool) -> list[str]:
    """What was done, in lines. Raises VersionError."""
    served = find_versions(directory)
    versions = {**withdrawn_versions(directory), **served}
    if version not in versions:
        raise _unknown(directory, version)
    rollout = _rollout(directory)
    if rollout and version in rollout.loaded:
        raise VersionError(
            f"{directory.name} {version} is in a rollout: abort it or promote it; after that "
            f"sluice rollout hold {directory.name} lets go of what does not answer"
        )
    labels = _labels(directory)
    held = [name for name, number in labels.items() if number == version]
    if version in served and version == max(served) and not force:
        raise VersionError(
            f"{directory.name} {version} is the newest, and served; sluice rollback "
            f"{directory.name} first, or --force"
        )
    if held and not force:
        raise VersionError(
            f"{directory.name} {version} is labelled {', '.join(held)}; sluice label "
            f"{directory.name} {held[0]}= first, or --force"
        )
    if held:
        write_labels(directory, {name: n for name, n in labels.items() if n != version})
    # Out of sight in one step: no server finds half of it.
    bin_ = Path(tempfile.mkdtemp(prefix=".removed-", dir=directory))
    versions[version].rename(bin_ / str(version))
    shutil.rmtree(bin_)
    return [f"{directory.name} {version} is deleted", *_left(directory, version, served)]


def _left(directory: Path, version: int, served: Mapping[int, Path]) -> list[str]:
    """What a running server does where `version` of those that were served is no more."""
    rest = [number for number in served if number != version]
    if version not in served:
        return []
    if rest and version > max(rest):
        return [
            f"{directory.name} {max(rest)} is the newest now; a running server takes it up within "
            f"seconds"
        ]
    if rest:
        return ["a running server that has it loaded lets go of it within seconds"]
    return [f"{directory.name} has no version left: a running server refuses it within seconds"]


def set_label(directory: Path, name: str, version: int | None) -> list[str]:
    """What was done, in lines. Raises VersionError."""
    labels, rollout = _labels(directory), _rollout(directory)
    if rollout and name in rollout.labels:
        raise VersionError(f"a rollout moves the label {name}; see sluice rollout --help")
    if version is None:
        if name not in labels:
            raise VersionError(f"{directory.name} has no label {name!r}; known: {_listed(labels)}")
        del labels[name]
        write_labels(directory, labels)
        return [f"{directory.name} has no label {name} any more", _UP]
    if fault := label_fault(name):
        raise VersionError(f"{name!r} cannot be a label: {fault}")
    if version not in find_versions(directory):
        raise _unknown(directory, version)
    write_labels(directory, labels | {name: version})
    return [f"{directory.name} {version} is {name}", _UP]


def find_version(repository: Path, model: str, version: int | None) -> Version:
    """One that is served or withdrawn; the newest that is served where none is said.

    Raises VersionError.
    """
    directory = find_model(repository, model)
    served = find_versions(directory)
    versions = {**withdrawn_versions(directory), **served}
    number = max(served) if version is None else version
    if number not in versions:
        raise _unknown(directory, number)
    return Version(model, number, versions[number])


def find_model(repository: Path, name: str) -> Path:
    """The directory of a model. Raises VersionError."""
    models, _ = survey(repository)
    if name not in models:
        near = nearest(name, models)
        meant = f"; did you mean {near}?" if near else f"; there are: {_listed(models)}"
        raise VersionError(f"there is no model {name!r} in {repository}{meant}")
    return models[name]


def _labels(directory: Path) -> dict[str, int]:
    try:
        return read_labels(directory)
    except ValueError as error:
        raise VersionError(str(error)) from error


def _rollout(directory: Path) -> Rollout | None:
    try:
        return read_rollout(directory)
    except ValueError as error:
        raise VersionError(str(error)) from error


def _unknown(directory: Path, version: int) -> VersionError:
    withdrawn = withdrawn_versions(directory)
    more = f"; withdrawn: {_listed(withdrawn)}" if withdrawn else ""
    return VersionError(
        f"{directory.name} has no version {version}; there are: "
        f"{_listed(find_versions(directory))}{more}"
    )


def _listed(names: object) -> str:
    return ", ".join(map(str, names)) or "none"  # type: ignore[call-overload]
