"""What can go wrong between a recipe and a published version; each message says what to do.

TrainingError
├── Misuse               what was asked for cannot be, whatever the data
│   ├── UnknownName      a recipe, model or setting that does not exist
│   └── BadSetting       a setting whose value is not of its type, or out of range
├── DataError            images or targets that cannot be trained on
│   └── DataUnavailable  a data set that is nowhere on this machine
├── NoGpu                fewer GPUs than the run was promised
├── CannotResume         no checkpoint, or one of a run with other settings
├── Diverged             a loss that became infinite or NaN
├── CannotAdopt          a model of the user's own that cannot be published
├── Occupied             another run of the same model that is at work
├── DiskFull             what a run keeps or publishes does not fit on the disk
└── PublishError         a version that must not be served
    ├── WrongAnswers     the written SavedModel does not answer as the Keras model does
    ├── BreakingChange   its signatures would break clients of the version before
    └── Worse            it is right less often than the live version, on the same samples
"""

from collections.abc import Iterable

from sluice.wire.nearest import nearest_first


class TrainingError(Exception):
    """The message is for people: which thing, what was expected, what came, what to do."""


class Misuse(TrainingError):
    pass


class UnknownName(Misuse):
    """`name` is not among `known`, which the message lists, nearest first.

    >>> print(UnknownName("there is no recipe", "digit", ["fashion", "digits"]))
    there is no recipe 'digit'; known, nearest first: digits, fashion
    """

    def __init__(self, said: str, name: str, known: Iterable[str]) -> None:
        listing = ", ".join(nearest_first(name, known))
        super().__init__(f"{said} {name!r}; known, nearest first: {listing}")


class BadSetting(Misuse):
    pass


class DataError(TrainingError):
    pass


class DataUnavailable(DataError):
    pass


class NoGpu(TrainingError):
    pass


class CannotResume(TrainingError):
    pass


class Diverged(TrainingError):
    pass


class Occupied(TrainingError):
    pass


class DiskFull(TrainingError):
    pass


class PublishError(TrainingError):
    pass


class WrongAnswers(PublishError):
    pass


class CannotAdopt(TrainingError):
    pass


class BreakingChange(PublishError):
    pass


class Worse(PublishError):
    pass
