"""What one caller may ask, and the operations that there are."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

from service.gateway.access.limits import NO_LIMITS, Limits
from service.gateway.errors import Forbidden, shown
from service.gateway.patterns import any_of

PREDICT, METADATA, STATUS = "predict", "metadata", "status"
OPERATIONS = (PREDICT, METADATA, STATUS)
ALL_MODELS = "*"
# Of models that each grant remembers whether it is for, and letters of each: clients invent some.
MOST_NAMES, MOST_LETTERS = 64, 256

# Each verb of a dialect (views.py, rpc/edge.py) is one of the operations that a key is for, or none
# that it needs a key for. A verb that does not stand here is answered to nobody.
OPERATION_OF: dict[str, str | None] = {
    "predict": PREDICT,
    "classify": PREDICT,
    "regress": PREDICT,
    "multi_inference": PREDICT,
    "infer": PREDICT,
    "metadata": METADATA,
    "getmodelmetadata": METADATA,
    "server_metadata": METADATA,
    "page": METADATA,
    "status": STATUS,
    "list_models": STATUS,
    "repository_index": STATUS,
    "statistics": STATUS,
    "model_ready": STATUS,
    "reload": STATUS,  # which is only ever refused
    "healthz": None,
    "readyz": None,
    "live": None,
    "ready": None,
}
# Of these, what may be about no model, or about all that the grant names. All else names one: a
# message without a name is not passed on for a key that is for others.
OF_ALL = frozenset(
    {"server_metadata", "page", "list_models", "repository_index", "statistics", "reload"}
)


@dataclass(frozen=True)
class Grant:
    """Whoever has it may ask these operations of the models that one of the patterns fits.

    `id` is what the log calls its holder; "" for somebody whom nobody knows. Where there is a
    `within`, one of its patterns has to fit as well.
    """

    id: str
    models: tuple[str, ...]
    operations: frozenset[str]
    limits: Limits = NO_LIMITS
    within: tuple[str, ...] | None = None

    def check(self, model: str | None, operation: str) -> None:
        """Raises Forbidden. The same words whether there is such a model or not; `model` is None
        for what is about none, or about all that the grant names."""
        if operation in self.operations and (model is None or self.names(model)):
            return
        about = "" if model is None else f' with the model "{shown(model)}"'
        raise Forbidden(f'{self._holder} may not do "{operation}"{about}')

    def check_all(self, operation: str) -> None:
        """The same for what tells of every model at once. Raises Forbidden."""
        lists = (self.models,) if self.within is None else (self.models, self.within)
        if operation not in self.operations or not all(ALL_MODELS in each for each in lists):
            raise Forbidden(f'{self._holder} may not do "{operation}" with every model')

    def names(self, model: str) -> bool:
        """Whether one of its patterns fits the model."""
        if len(model) > MOST_LETTERS:
            return _fit(self._patterns, model)
        return self._cached_fit(model)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        lists = (self.models,) if self.within is None else (self.models, self.within)
        return [any_of(each) for each in lists]

    @cached_property
    def _cached_fit(self) -> Callable[[str], bool]:
        return lru_cache(MOST_NAMES)(partial(_fit, self._patterns))

    @property
    def _holder(self) -> str:
        return f'The key "{self.id}"' if self.id else "A caller without a key"


def _fit(patterns: Sequence[re.Pattern[str]], model: str) -> bool:
    return all(each.match(model) for each in patterns)


# Of whoever asks where nobody is asked for a key, and of the gateway itself.
EVERYTHING = Grant("", (ALL_MODELS,), frozenset(OPERATIONS))
