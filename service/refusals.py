"""Why a command refuses, in one line: with status 2 where what was typed is wrong, as click's own
usage errors have it, and with 1 where it is right and did not work.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click


class WrongUsage(click.ClickException):
    """An argument, an option or a setting that cannot be used."""

    exit_code = 2


@contextmanager
def training_refusals() -> Iterator[None]:
    """A TrainingError as a command's refusal. To be entered where `training` is installed.

    >>> from training.errors import BadSetting
    >>> with training_refusals():
    ...     raise BadSetting("epochs must be 1 to 100,000, not 0")
    Traceback (most recent call last):
    service.refusals.WrongUsage: epochs must be 1 to 100,000, not 0
    """
    from training.errors import Misuse, TrainingError

    try:
        yield
    except Misuse as error:
        raise WrongUsage(str(error)) from None
    except TrainingError as error:
        raise click.ClickException(str(error)) from None
