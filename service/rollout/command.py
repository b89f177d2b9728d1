"""`sluice rollout`: bring a version into service step by step, and take it back."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import click

from service.captures import Captures, NoCaptures
from service.replay.command import API_KEY, MODEL_SERVER
from service.rollout import state
from service.rollout.evidence import read_evidence
from service.rollout.following import NO_REPLAY, Replay, Telling, follow
from service.rollout.guard import Guard, read_guard
from service.rollout.replaying import Replaying, captured_of
from service.rollout.state import StateError
from service.rollout.words import as_text, described
from service.versions import REPOSITORY, find_model
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import BY_HEADER, BY_KEY, RANDOM, Rollout, Stage, checked_by

Result = TypeVar("Result")

_MODEL = click.argument("model")
_WHY = click.option(
    "--why",
    default=state.BY_HAND,
    show_default=True,
    help="What the history of the rollout says, beside who you are.",
)
_WHEN = "a running server does so within seconds"
_SHARE = click.FloatRange(0, 1)


class RolloutError(click.ClickException):
    """What cannot be done with a rollout, in one line."""


class _Verbs(click.Group):
    """`sluice rollout MODEL VERSION` is `run MODEL VERSION`."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in self.commands and not arguments[0].startswith("-"):
            arguments = ["run", *arguments]
        return super().resolve_command(context, arguments)


@click.group(cls=_Verbs, subcommand_metavar="MODEL VERSION | COMMAND MODEL")
def rollout() -> None:
    """Bring a version of a model into service step by step: shadow, canary, promoted.

    Gateways follow `rollout.json` beside the model's versions. A model that is served by what a
    rollout says goes on so: a version that is published waits for its own, until `end`.
    """


def _beginning(command: Callable[..., None]) -> Callable[..., None]:
    """What is said of a rollout when it begins."""
    for declared in (
        click.option(
            "--by",
            metavar="HOW",
            default=RANDOM,
            show_default=True,
            callback=lambda _c, _p, text: _by(text),
            help=f"How the canary's requests are chosen: {RANDOM}, {BY_KEY} (a key's go all one "
            f"way) or {BY_HEADER}NAME (so do those with the same value).",
        ),
        click.option(
            "--shadow",
            type=_SHARE,
            default=1.0,
            show_default=True,
            help="Of the requests that live answers, the share that VERSION is asked too, for "
            "nobody.",
        ),
        click.option(
            "--live",
            type=int,
            help="The version that answers meanwhile; what does if not given.",
        ),
        REPOSITORY,
        click.argument("version", type=int),
        _MODEL,
    ):
        command = declared(command)
    return command


@rollout.command()
@_beginning
@click.option(
    "--guard",
    "guard_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What VERSION may do otherwise, and its steps, in TOML.",
)
@click.option(
    "--capture",
    type=click.Path(path_type=Path, exists=True),
    help="A file, or a directory, of captured requests: both versions are asked them first.",
)
@MODEL_SERVER
@API_KEY
@click.pass_context
def run(
    context: click.Context,
    model: str,
    version: int,
    model_repository: Path,
    live: int | None,
    shadow: float,
    by: str,
    guard_file: Path | None,
    capture: Path | None,
    address: str,
    api_key: str | None,
) -> None:
    """Bring VERSION of MODEL into service by itself: shadow, canary, promoted; back at the first
    breach of its guard. `run` itself may be left out. Stopped and begun again, it goes on.

    The exit status is 0 where VERSION is promoted in the end, 1 where it is not.
    """
    directory = find_model(model_repository, model)
    guard = _changed(directory, lambda: read_guard(guard_file)) if guard_file else Guard()
    captures = _captures(capture, model) if capture else None
    begun = _begin(directory, version, live, by, shadow, Stage.REPLAY if capture else Stage.SHADOW)
    replay: Replay = (
        Replaying(directory, begun, captures, address, api_key) if captures else NO_REPLAY
    )
    with closing(replay):
        ended = _changed(
            directory, lambda: follow(directory, guard, Telling(click.echo), replay=replay)
        )
    if ended is None:
        raise RolloutError(f"the rollout of {model} {version} was taken away")
    click.echo(f"{model}: {described(ended)}; {ended.history[-1].why}")
    context.exit(0 if ended.answering == version else 1)


@rollout.command()
@_beginning
def start(
    model: str, version: int, model_repository: Path, live: int | None, shadow: float, by: str
) -> None:
    """Begin by hand: VERSION of MODEL is asked what the live one answers, and compared."""
    directory = find_model(model_repository, model)
    begun = _begin(directory, version, live, by, shadow, Stage.SHADOW)
    click.echo(f"{model}: {described(begun)}; sluice rollout status {model} tells what is seen")


@rollout.command()
@_MODEL
@REPOSITORY
def status(model: str, model_repository: Path) -> None:
    """Say where the rollout of MODEL stands, and what has been seen of it."""
    directory = find_model(model_repository, model)
    found = _changed(directory, lambda: read_rollout(directory, check_versions=False))
    if found is None:
        click.echo(f"{model}: no rollout; the newest version answers")
        return
    seen = _changed(directory, lambda: read_evidence(directory, found.id))
    click.echo(f"{model}: {described(found)}")
    for event in found.history:
        click.echo(f"  {event}")
    click.echo(as_text(seen))


@rollout.command()
@_MODEL
@click.argument("share", type=_SHARE)
@_WHY
@REPOSITORY
def canary(model: str, share: float, model_repository: Path, why: str) -> None:
    """Let the next version of MODEL answer SHARE of the requests, from 0 to 1."""
    _move(model, model_repository, lambda directory: state.canary(directory, share, why))


@rollout.command()
@_MODEL
@_WHY
@REPOSITORY
def promote(model: str, model_repository: Path, why: str) -> None:
    """Let the next version of MODEL answer every request; the one before stays loaded."""
    _move(model, model_repository, lambda directory: state.promote(directory, why))


@rollout.command()
@_MODEL
@_WHY
@REPOSITORY
def abort(model: str, model_repository: Path, why: str) -> None:
    """Go back: the version of MODEL before answers every request, also after a promotion."""
    _move(model, model_repository, lambda directory: state.abort(directory, why))


@rollout.command()
@_MODEL
@_WHY
@REPOSITORY
def pause(model: str, model_repository: Path, why: str) -> None:
    """Let the live version of MODEL answer every request for now, and ask the next nothing."""
    _move(model, model_repository, lambda directory: state.pause(directory, why))


@rollout.command()
@_MODEL
@_WHY
@REPOSITORY
def resume(model: str, model_repository: Path, why: str) -> None:
    """Go on where the rollout of MODEL was paused."""
    _move(model, model_repository, lambda directory: state.resume(directory, why))


@rollout.command()
@_MODEL
@click.argument("version", type=int, required=False)
@_WHY
@REPOSITORY
def hold(model: str, version: int | None, model_repository: Path, why: str) -> None:
    """Hold VERSION of MODEL, or the one that answers now: what is published waits for its rollout.

    After a promotion it lets go of the version before, which is unloaded.
    """
    _move(model, model_repository, lambda directory: state.hold(directory, version, why))


@rollout.command()
@_MODEL
@REPOSITORY
def end(model: str, model_repository: Path) -> None:
    """Be done with rollouts of MODEL: the newest version answers, whatever is published."""
    directory = find_model(model_repository, model)
    _changed(directory, lambda: state.end(directory))
    click.echo(f"{model}: no rollout; the newest version answers: {_WHEN}")


def _by(text: str) -> str:
    try:
        return checked_by(text)
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("by: ")) from None


def _captures(path: Path, model: str) -> Captures:
    try:
        captures = Captures(path)
    except NoCaptures as error:
        raise RolloutError(str(error)) from None
    if next(captured_of(captures, model), None) is None:
        raise RolloutError("; ".join([f"{path} holds no request of {model}", *captures.faults]))
    return captures


def _begin(
    directory: Path, version: int, live: int | None, by: str, shadow: float, stage: Stage
) -> Rollout:
    return _changed(
        directory,
        lambda: state.start(directory, version, live=live, by=by, shadow_share=shadow, stage=stage),
    )


def _move(model: str, repository: Path, move: Callable[[Path], Rollout]) -> None:
    directory = find_model(repository, model)
    moved = _changed(directory, lambda: move(directory))
    click.echo(f"{model}: {described(moved)}: {_WHEN}")


def _changed(directory: Path, change: Callable[[], Result]) -> Result:
    """What a change gives, or a look; what cannot be done, read or written, as one line."""
    try:
        return change()
    except (StateError, ValueError) as error:
        raise RolloutError(str(error)) from None
    except OSError as error:
        raise RolloutError(f"{error.filename or directory}: {error.strerror}") from None
