"""`sluice package`: a version as an OCI image, for registries, image volumes and modelcars."""

from pathlib import Path

import click

from service.packaging.oci_layout import CannotPackage, write_layout
from service.versions import REPOSITORY, VersionError, find_version
from sluice.wire.versions import number_of, why_no_saved_model


@click.command()
@click.argument("model")
@click.argument("version", type=int, required=False)
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
@REPOSITORY
def package(
    model: str, version: int | None, output: Path, base: Path | None, model_repository: Path
) -> None:
    """Write VERSION of MODEL, or the newest, as an OCI image with /models/VERSION in it.

    The same version gives the same digest.
    """
    directory = find_version(model_repository, model, version)
    number = number_of(directory)
    assert number is not None
    try:
        if reason := why_no_saved_model(directory):
            raise VersionError(reason)
        digest = write_layout(directory, model, number, output, base)
    except (CannotPackage, OSError) as error:
        raise VersionError(str(error)) from None
    click.echo(f"{model} {number} is in {output} as {digest}")
    click.echo(f"Push it:  skopeo copy --all oci:{output}:{number} docker://REGISTRY/{model}")
