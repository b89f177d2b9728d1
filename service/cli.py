"""The `sluice` command. Each subcommand imports what it needs, so none pays for another's part, and
one whose part was not installed says so in a line.
"""

import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from service.commands import Commands, require
from service.publish import ALLOW_BREAKING, MODEL_REPOSITORY, SIGN
from service.recipes import TrainCommand
from service.refusals import WrongUsage, training_refusals
from sluice.wire.contract import OPTIMIZE

HTTP_PORT = click.option(
    "--http-port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Where HTTP clients come in.",
)
GRPC_PORT = click.option(
    "--grpc-port",
    type=click.IntRange(1, 65535),
    default=8500,
    show_default=True,
    help="Where the model server answers gRPC.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sluice")
def main() -> None:
    """Train Keras models, publish them, and serve them over HTTP and gRPC."""
    from service.gateway.settings import Settings

    if isinstance(sys.stdout, io.TextIOWrapper):  # names on a disk need not be text
        sys.stdout.reconfigure(errors="backslashreplace")

    with _setting_errors():
        Settings.check_variables()


@main.command()
@MODEL_REPOSITORY
@click.option(
    "--host",
    envvar="SLUICE_HTTP_HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address that both ports listen on; 0.0.0.0 or :: opens them to other machines.",
)
@HTTP_PORT
@GRPC_PORT
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Where the model server answers Prometheus, at /monitoring/prometheus/metrics; none "
    "unless given.",
)
@click.option(
    "--allow-reload-config",
    is_flag=True,
    help="Let gRPC clients change what is served (HandleReloadConfigRequest).",
)
@click.option(
    "--tls-self-signed",
    is_flag=True,
    help="HTTPS with a certificate made for the time that it runs, for a try.",
)
@click.option(
    "--trusted-keys",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Serve what these public keys (PEM) have signed, and no other version; by the embedded "
    "model server, as TensorFlow Serving does not look.",
)
@click.option("--check", is_flag=True, help="Only look whether it could start: ports, settings.")
def up(check: bool, **options: Any) -> None:
    """Serve a model repository: a model server and the gateway before it, until stopped."""
    from service.up import command_lines, supervisor

    has_model_server = (
        shutil.which(command_lines.TENSORFLOW_MODEL_SERVER) is not None
        and not options["trusted_keys"]
    )
    require("up", "gateway", *([] if has_model_server else ["modelserver"]))
    with _setting_errors():
        from service.gateway.checks import check_settings
        from service.gateway.settings import Settings

        settings = Settings.from_environment()
        check_settings(replace(settings, http_host=options["host"]))
        _check_tls_of_up(settings, options["tls_self_signed"])
    given = command_lines.Options(
        **options,
        other_ports={
            "SLUICE_GRPC_PORT": settings.grpc_port,
            "SLUICE_ADMIN_PORT": settings.admin_port if "SLUICE_ADMIN_PORT" in os.environ else 0,
        },
        drain_timeout_s=settings.drain_timeout_s,
        asks_for_keys=bool(settings.access_file),
        tls=bool(settings.tls_certificate_file),
    )
    try:
        if not check:
            sys.exit(supervisor.Supervisor(given).run())
        supervisor.check(given)
    except supervisor.StackError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option(
    "--model-server",
    metavar="HOST:PORT[,HOST:PORT]",
    help="The model server's gRPC address [SLUICE_MODEL_SERVER].",
)
@click.option("--http-port", type=click.IntRange(1, 65535), help="[SLUICE_HTTP_PORT]")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="0: none [SLUICE_GRPC_PORT]")
@click.option("--admin-port", type=click.IntRange(0, 65535), help="0: none [SLUICE_ADMIN_PORT]")
def gateway(
    model_server: str | None,
    http_port: int | None,
    grpc_port: int | None,
    admin_port: int | None,
) -> None:
    """Run the gateway, HTTP and gRPC, under gunicorn; every setting is a variable SLUICE_*."""
    require("gateway", "gateway")
    from service.gateway.checks import check_settings
    from service.gateway.memory import keep_memory
    from service.gateway.settings import Settings

    given = {
        "SLUICE_MODEL_SERVER": model_server,
        "SLUICE_HTTP_PORT": http_port,
        "SLUICE_GRPC_PORT": grpc_port,
        "SLUICE_ADMIN_PORT": admin_port,
    }
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    with _setting_errors():
        check_settings(Settings.from_environment())
    keep_memory()
    # gRPC's core writes an error for each connection to a model server without a health service,
    # which is no error here; what does go wrong reaches the gateway's own log as an exception.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    config = Path(__file__).parent / "gateway" / "gunicorn.conf.py"
    # In place of this process, so that signals reach gunicorn itself; -P, so that a folder named
    # like one of our packages in the current directory is not taken for it.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gunicorn", "-c", str(config)])


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def modelserver(flags: tuple[str, ...]) -> None:
    """Run the embedded model server; takes tensorflow_model_server's flags (try --help)."""
    require("modelserver", "modelserver")
    from service.modelserver.__main__ import main as serve
    from service.modelserver.__main__ import use_huge_pages

    use_huge_pages()
    sys.exit(serve(list(flags)))


@main.command(cls=TrainCommand)
@click.argument("recipe")
@MODEL_REPOSITORY
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="Folder of the training data, where it is not the recipe's own.",
)
@click.option("--epochs", type=click.IntRange(1), help="How often training sees every image.")
@click.option("--batch-size", type=click.IntRange(1), help="Images of a step.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    callback=lambda _c, _p, all_: dict(_key_and_value(each) for each in all_),
    help="A setting of the recipe, of those that `sluice train RECIPE --help` lists.",
)
@click.option(
    "--optimize",
    type=click.Choice(OPTIMIZE),
    help="Publish more graphs, where they answer as the first does: bf16, in bfloat16 for CPUs; "
    "gpu, in half precision for GPUs.",
)
@click.option("--resume", is_flag=True, help="Go on where a run that was cut off had come to.")
@click.option("--name", help="Name to publish under; the recipe's own if not given.")
@ALLOW_BREAKING
@click.option(
    "--allow-worse",
    is_flag=True,
    help="Publish even if the version before is better, on its own held-out images.",
)
@SIGN
def train(recipe: str, **options: Any) -> None:
    """Train RECIPE and publish the model as the next version in the repository."""
    require("train", "training")
    import training

    with training_refusals():
        version = training.train(recipe, **options)
    if version is None:
        click.echo("Trained; the first machine publishes")
        return
    click.echo(
        f"Published {version}. A server of this repository takes it up by itself; to start one:"
    )
    click.echo(f"    sluice up --model-repository {shlex.quote(str(options['model_repository']))}")


@main.command()
@MODEL_REPOSITORY
@click.option("--json", "as_json", is_flag=True, help="For programs; says more than the table.")
def models(model_repository: Path, as_json: bool) -> None:
    """List what is published: versions, signatures, and how good each was on its test images."""
    from training.publishing import listing

    if as_json:
        click.echo(json.dumps(listing.as_json(model_repository), indent=2))
    else:
        click.echo(listing.table(model_repository))


@contextmanager
def _setting_errors() -> Iterator[None]:
    """A bad SLUICE_* variable as one line, not a traceback."""
    from service.gateway.variables import InvalidSetting

    try:
        yield
    except InvalidSetting as error:
        raise WrongUsage(str(error)) from None


def _check_tls_of_up(settings: Any, self_signed: bool) -> None:
    """Raises InvalidSetting."""
    from service.gateway.variables import InvalidSetting

    if self_signed and settings.tls_certificate_file:
        raise InvalidSetting(
            "SLUICE_TLS_CERTIFICATE_FILE: --tls-self-signed makes a certificate; leave one out"
        )
    if settings.tls_model_server == "on":
        raise InvalidSetting(
            "SLUICE_TLS_MODEL_SERVER: `sluice up` starts its own model server, which is reached on "
            "this machine without TLS; leave it out"
        )


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"expected KEY=VALUE, got {text!r}")
    return key, value


if __name__ == "__main__":
    main()
