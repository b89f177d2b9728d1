"""`sluice package`: a version as an OCI image, for registries, image volumes and modelcars."""

import re
import shlex
from pathlib import Path

import click

from service.packaging.oci_layout import CannotPackage, write_layout
from service.versions import Version, VersionError, of_one_version
from sluice.wire.versions import why_no_saved_model


@click.command()
@of_one_version
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The directory to write, an OCI image layout; one that is not there yet.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The layout of an image to put it on; on nothing, if not given.",
)
def package(version: Version, output: Path, base: Path | None) -> None:
    """Write VERSION of MODEL, or the newest, as an OCI image with /models/VERSION in it.

    The same version gives the same digest.
    """
    model, number, directory = version
    try:
        if reason := why_no_saved_model(directory):
            raise VersionError(reason)
        digest = write_layout(directory, model, number, output, base)
    except (CannotPackage, OSError) as error:
        raise VersionError(str(error)) from None
    click.echo(f"{model} {number} is in {output} as {digest}")
    layout = shlex.quote(f"oci:{output}:{number}")
    click.echo(f"Push it:  skopeo copy --all {layout} docker://REGISTRY/{_repository(model)}")


def _repository(model: str) -> str:
    """The model's name as a registry takes one: no capitals, and one separator between words."""
    return re.sub("[^a-z0-9]+", "-", model.lower()).strip("-") or "model"
