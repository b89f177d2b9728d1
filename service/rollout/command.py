"""`sluice rollout`: bring a version into service step by step, and take it back."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from service.rollout import state
from service.rollout.evidence import Answers, Evidence, read_evidence
from service.rollout.following import Telling, follow
from service.rollout.guard import Guard, read_guard
from service.rollout.state import StateError
from service.versions import REPOSITORY, find_model
from sluice.client.tables import table
from sluice.wire.rollouts import BY_HEADER, BY_KEY, RANDOM, Rollout, Stage, read_rollout

Result = TypeVar("Result")

_MODEL = click.argument("model")
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
) -> None:
    """Bring VERSION of MODEL into service by itself: shadow, canary, promoted; back at the first
    breach of its guard. `run` itself may be left out. Stopped and begun again, it goes on.

    The exit status is 0 where VERSION is promoted in the end, 1 where it is not.
    """
    directory = find_model(model_repository, model)
    guard = _changed(lambda: read_guard(guard_file)) if guard_file else Guard()
    _changed(lambda: state.start(directory, version, live=live, by=by, shadow_share=shadow))
    ended = _changed(lambda: follow(directory, guard, Telling(click.echo)))
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
    begun = _changed(lambda: state.start(directory, version, live=live, by=by, shadow_share=shadow))
    click.echo(
        f"{model} {begun.next} is asked {begun.shadow_share:.3g} of what {begun.live} answers, and "
        f"answers nobody; sluice rollout status {model} tells what it says"
    )


@rollout.command()
@_MODEL
@REPOSITORY
def status(model: str, model_repository: Path) -> None:
    """Say where the rollout of MODEL stands, and what has been seen of it."""
    directory = find_model(model_repository, model)
    found = _changed(lambda: read_rollout(directory))
    if found is None:
        click.echo(f"{model}: no rollout; the newest version answers")
        return
    click.echo(f"{model}: {described(found)}")
    for event in found.history:
        share = f" {event.canary_share:.3g}" if event.stage is Stage.CANARY else ""
        at = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"  {at}  {event.stage.replace('_', ' ')}{share}, {event.why}")
    click.echo(as_text(read_evidence(directory, found.id)))


@rollout.command()
@_MODEL
@click.argument("share", type=_SHARE)
@REPOSITORY
def canary(model: str, share: float, model_repository: Path) -> None:
    """Let the next version of MODEL answer SHARE of the requests, from 0 to 1."""
    _move(model, model_repository, lambda directory: state.canary(directory, share))


@rollout.command()
@_MODEL
@REPOSITORY
def promote(model: str, model_repository: Path) -> None:
    """Let the next version of MODEL answer every request; the one before stays loaded."""
    _move(model, model_repository, state.promote)


@rollout.command()
@_MODEL
@REPOSITORY
def abort(model: str, model_repository: Path) -> None:
    """Go back: the version of MODEL before answers every request, also after a promotion."""
    _move(model, model_repository, state.abort)


@rollout.command()
@_MODEL
@REPOSITORY
def pause(model: str, model_repository: Path) -> None:
    """Let the live version of MODEL answer every request for now, and ask the next nothing."""
    _move(model, model_repository, state.pause)


@rollout.command()
@_MODEL
@REPOSITORY
def resume(model: str, model_repository: Path) -> None:
    """Go on where the rollout of MODEL was paused."""
    _move(model, model_repository, state.resume)


@rollout.command()
@_MODEL
@click.argument("version", type=int, required=False)
@REPOSITORY
def hold(model: str, version: int | None, model_repository: Path) -> None:
    """Hold VERSION of MODEL, or the one that answers now: what is published waits for its rollout.

    After a promotion it lets go of the version before, which is unloaded.
    """
    _move(model, model_repository, lambda directory: state.hold(directory, version))


@rollout.command()
@_MODEL
@REPOSITORY
def end(model: str, model_repository: Path) -> None:
    """Be done with rollouts of MODEL: the newest version answers, whatever is published."""
    directory = find_model(model_repository, model)
    _changed(lambda: state.end(directory))
    click.echo(f"{model}: no rollout; the newest version answers: {_WHEN}")


def described(found: Rollout) -> str:
    """Where it stands, in words.

    >>> described(Rollout("a", 1, 2, Stage.CANARY, canary_share=0.1))
    'canary: version 1 answers, and 2 answers 0.1 of the requests'
    """
    if found.live == found.next:
        return f"version {found.live} is held"
    told = f"{found.stage.replace('_', ' ')}: version {found.answering} answers"
    if found.canary:
        return f"{told}, and {found.next} answers {found.canary:.3g} of the requests"
    if found.shadow:
        return f"{told}, and {found.next} is asked {found.shadow:.3g} of the same for nobody"
    return told


def as_text(seen: Evidence) -> str:
    """What has been seen, as it is printed.

    >>> print(as_text(Evidence("a", pairs=400, changed=2, changes={"class": 1, "score": 2})))
    Of 400 requests that both were asked 2 are answered otherwise: class 1, score 2
    ANSWERED BY        REQUESTS  ERRORS  P50 MS  P99 MS
    live               0         0       -       -
    next, as a canary  0         0       -       -
    """
    kinds = ", ".join(f"{kind} {number:,}" for kind, number in sorted(seen.changes.items()))
    told = (
        f"Of {seen.pairs:,} requests that both were asked {seen.changed:,} are answered otherwise"
        f"{f': {kinds}' if kinds else ''}"
    )
    if seen.dropped:
        told += f"; {seen.dropped:,} more were not asked for want of room"
    rows = [["live", *_cells(seen.stable)], ["next, as a canary", *_cells(seen.canary)]]
    return f"{told}\n{table(['answered by', 'requests', 'errors', 'p50 ms', 'p99 ms'], rows)}"


def _cells(answers: Answers) -> list[str]:
    times = [answers.quantile_s(share) for share in (0.5, 0.99)]
    return [
        f"{answers.requests:,}",
        f"{answers.errors:,}",
        *("-" if each is None else f"{each * 1e3:.3g}" for each in times),
    ]


def _by(text: str) -> str:
    if text in (RANDOM, BY_KEY) or (text.startswith(BY_HEADER) and text != BY_HEADER):
        return text.lower()
    raise click.BadParameter(f"expected {RANDOM}, {BY_KEY} or {BY_HEADER}NAME, got {text!r}")


def _move(model: str, repository: Path, move: Callable[[Path], Rollout]) -> None:
    directory = find_model(repository, model)
    click.echo(f"{model}: {described(_changed(lambda: move(directory)))}: {_WHEN}")


def _changed(change: Callable[[], Result]) -> Result:
    """What a change gives; what cannot be done, or be written, as one line."""
    try:
        return change()
    except (StateError, ValueError) as error:
        raise RolloutError(str(error)) from None
    except OSError as error:
        raise RolloutError(f"{error.filename}: {error.strerror}") from None
