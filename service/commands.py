"""Which subcommands `sluice` has, where those live that are not in cli.py, and what has to be
installed for each.
"""

from importlib import import_module
from importlib.util import find_spec

import click

from sluice.wire.nearest import nearest

# By extra (pyproject.toml), what is imported from what it installs; a test holds the two together.
EXTRAS = {
    "gateway": (
        "a2wsgi",
        "cachetools",
        "cryptography",
        "flask",
        "grpc_health",
        "google_crc32c",
        "gunicorn",
        "jwt",
        "orjson",
        "PIL",
        "prometheus_client",
        "pybase64",
        "redis",
        "simdjson",
        "tomlkit",
    ),
    "modelserver": ("tensorflow", "grpc_health", "cryptography"),
    "signing": ("cryptography",),
    "training": (
        "keras",
        "tensorflow",
        "sklearn",
        "matplotlib",
        "PIL",
        "tensorboard",
        "cryptography",
    ),
}

# Commands that live with what they do: the module that has each, and the extras that it needs.
ELSEWHERE = {
    "capture": ("service.capture", ("gateway",)),
    "predict": ("sluice.client.command", ()),
    "admit": ("service.signing", ("signing",)),
    "keys": ("service.keys", ("gateway",)),
    "label": ("service.versions", ()),
    "replay": ("service.replay.command", ("gateway",)),
    "rm": ("service.versions", ()),
    "rollback": ("service.versions", ()),
    "package": ("service.packaging.command", ()),
    "rollout": ("service.rollout.command", ()),
    "publish": ("service.publish", ("training",)),
    "recipes": ("service.recipes", ()),
    "sign": ("service.signing", ("signing",)),
    "verify": ("service.signing", ("signing",)),
}


class Commands(click.Group):
    """Add those from elsewhere when they are asked for: their libraries are not every command's.
    Its help says whole sentences, where click cuts them at the first line's end."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *ELSEWHERE])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in ELSEWHERE:
            return super().get_command(context, name)
        module, _ = ELSEWHERE[name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] in ELSEWHERE:
            require(arguments[0], *ELSEWHERE[arguments[0]][1])
        try:
            return super().resolve_command(context, arguments)
        except click.exceptions.NoSuchCommand as error:
            known = self.list_commands(context)
            meant = nearest(error.command_name, known)
            advice = f"did you mean {meant!r}?" if meant else f"there are {', '.join(known)}."
            raise click.UsageError(
                f"No such command {error.command_name!r}; {advice}", context
            ) from None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(context):
            command = self.get_command(context, name)
            if command is not None and not command.hidden:
                rows.append((name, (command.help or "").partition("\n\n")[0]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def require(command: str, *extras: str) -> None:
    """Refuse in one line where an extra is missing. Asked beforehand, as children import it as
    well; a ModuleNotFoundError that comes up later is a fault of ours, and stays a traceback."""
    lacking = [extra for extra in extras if not all(map(find_spec, EXTRAS[extra]))]
    if lacking:
        raise click.ClickException(
            f'"sluice {command}" needs the {" and ".join(lacking)} '
            f"extra{'s' if len(lacking) > 1 else ''}: pip install 'sluice[{','.join(lacking)}]'"
        )
