"""What a client's methods do, step by step, without doing it: no thread, no loop, no protocol."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from sluice.client._calls import (
    Attempt,
    Call,
    Flow,
    GetMetadata,
    GetStatus,
    IsReady,
    ListModels,
    Pause,
    Predict,
    Result,
)
from sluice.client._inputs import Value, holds_files, to_array
from sluice.client.errors import BadRequest, DeadlineExceeded, NotFound, TryLater
from sluice.client.results import ModelMetadata, Prediction, VersionStatus
from sluice.wire.contract import (
    DEFAULT_SIGNATURE,
    ENCODED_SIGNATURE,
    EXPLAINED_BY,
    PIXELS_SIGNATURE,
)
from sluice.wire.explanations import with_best_class
from sluice.wire.model_ref import ModelRef
from sluice.wire.pixels import UINT8, inputs_as_bytes
from sluice.wire.signature import TensorSpec
from sluice.wire.tensors import Array

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Flows:
    """The flows of one client; it remembers the metadata of the models that it has asked."""

    def __init__(self, timeout_s: float, retries: int) -> None:
        self._timeout_s, self._retries = timeout_s, retries
        self._known: dict[ModelRef, ModelMetadata] = {}

    def predict(
        self,
        model: ModelRef,
        values: Mapping[str | None, Value],
        signature: str | None,
        outputs: Sequence[str],
        timeout_s: float | None,
    ) -> Flow[Prediction]:
        """`values` by input name; None stands for the only input."""
        deadline = self._deadline(timeout_s)
        metadata = yield from self._remembered(model, deadline)
        try:
            if signature is None and _are_bytes(values, metadata):
                with suppress(BadRequest):  # another version may have no such signature
                    call = _predict(model, values, PIXELS_SIGNATURE, outputs, metadata)
                    return (yield from self._call(call, deadline))
                self._known.pop(model, None)
            name = signature or _signature_for(values.values(), metadata)
            call = _predict(model, values, name, outputs, metadata)
            return (yield from self._call(call, deadline))
        except (BadRequest, NotFound):
            self._known.pop(model, None)  # a new version may take something else
            raise

    def explain(
        self,
        model: ModelRef,
        values: Mapping[str | None, Value],
        class_index: int | None,
        timeout_s: float | None,
    ) -> Flow[Prediction]:
        """`values` as `predict` takes them."""
        deadline = self._deadline(timeout_s)
        metadata = yield from self._remembered(model, deadline)
        try:
            name = EXPLAINED_BY[_signature_for(values.values(), metadata)]
            inputs = _explained(_arrays(values, name, metadata), class_index, name, metadata)
            call = Predict(model, name, inputs, (), _pictures(inputs, name, metadata))
            return (yield from self._call(call, deadline))
        except (BadRequest, NotFound):
            self._known.pop(model, None)  # a new version may explain what this one does not
            raise

    def metadata(self, model: ModelRef, timeout_s: float | None) -> Flow[ModelMetadata]:
        return (yield from self._call(GetMetadata(model), self._deadline(timeout_s)))

    def status(self, model: str, timeout_s: float | None) -> Flow[list[VersionStatus]]:
        return (yield from self._call(GetStatus(model), self._deadline(timeout_s)))

    def models(self, timeout_s: float | None) -> Flow[list[str]]:
        return (yield from self._call(ListModels(), self._deadline(timeout_s)))

    def ready(self, model: str | None, timeout_s: float | None) -> Flow[bool]:
        """One attempt: whoever waits for a server asks again."""
        try:
            answer: bool = yield Attempt(IsReady(model), timeout_s or self._timeout_s)
            return answer
        except (TryLater, DeadlineExceeded, NotFound):
            return False

    def _remembered(self, model: ModelRef, deadline: float) -> Flow[ModelMetadata]:
        known = self._known.get(model)  # another thread may forget it at any time
        if known is None:
            known = self._known[model] = yield from self._call(GetMetadata(model), deadline)
        return known

    def _call(self, call: Call[Result], deadline: float) -> Flow[Result]:
        """The call's result, after as many attempts as `retries`, the deadline and the error allow.

        Only TryLater is tried again: the server did not take the request, or took it and died;
        and nothing that is asked here changes anything.
        """
        pauses = _pauses(self._retries)
        while True:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise DeadlineExceeded(
                    "timeout_s was used up before the request could be sent; give it more"
                )
            try:
                result: Result = yield Attempt(call, remaining_s)
                return result
            except TryLater as error:
                # After the last attempt there is no pause that the deadline would leave time for.
                pause_s = max(next(pauses, float("inf")), error.retry_after_s)
                if time.monotonic() + pause_s >= deadline:
                    raise
            yield Pause(pause_s)

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)


def _pauses(count: int) -> Iterator[float]:
    """Seconds, doubling; each shortened by chance, so that many clients do not come back as one."""
    for attempt in range(count):
        yield min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1)


def _signature_for(values: Iterable[Value], metadata: ModelMetadata) -> str:
    # A model that is not Sluice's may well take files, or other strings, by its default signature.
    files = any(holds_files(value) for value in values)
    decodes_files = ENCODED_SIGNATURE in metadata.signatures
    return ENCODED_SIGNATURE if files and decodes_files else DEFAULT_SIGNATURE


def _are_bytes(values: Mapping[str | None, Value], metadata: ModelMetadata) -> bool:
    """Whether every picture is an array of uint8, and the model takes those as they are."""
    names = inputs_as_bytes(metadata.signatures)
    only = values.get(None) if len(names) == 1 else None
    given = [values.get(name, only) for name in names]
    return bool(given) and all(
        isinstance(value, np.ndarray) and value.dtype == UINT8 for value in given
    )


def _predict(
    model: ModelRef,
    values: Mapping[str | None, Value],
    signature_name: str,
    outputs: Sequence[str],
    metadata: ModelMetadata,
) -> Predict:
    inputs = _arrays(values, signature_name, metadata)
    pictures = _pictures(inputs, signature_name, metadata)
    return Predict(model, signature_name, inputs, tuple(outputs), pictures)


def _arrays(
    values: Mapping[str | None, Value], signature_name: str, metadata: ModelMetadata
) -> dict[str, Array]:
    if signature_name not in metadata.signatures:
        cannot_say_why = (
            ", so it cannot say why; publish it again (sluice train, sluice publish)"
            if signature_name in EXPLAINED_BY.values()
            else ""
        )
        raise BadRequest(
            f'{metadata.name} has no signature "{signature_name}"{cannot_say_why}; '
            f"it has {', '.join(metadata.signatures) or 'none that can be called'}"
        )
    specs = metadata.signatures[signature_name].inputs
    required = metadata.signatures[signature_name].required
    named = {name or _only(required, signature_name): value for name, value in values.items()}
    # A name that is not the model's goes as it is: the server, which may have a newer version than
    # is remembered here, says what it takes.
    return {
        name: to_array(value, specs.get(name), signature_name, metadata)
        for name, value in named.items()
    }


def _explained(
    inputs: Mapping[str, Array],
    class_index: int | None,
    signature_name: str,
    metadata: ModelMetadata,
) -> dict[str, Array]:
    """The inputs, with a class for each head: of the only one `class_index`, where it is given."""
    signature = metadata.signatures[signature_name]
    completed = with_best_class(signature, inputs)
    if class_index is None:
        return completed
    if len(signature.class_inputs) != 1:
        raise BadRequest(
            f"{metadata.name} has classes of several heads: give "
            f"{' or '.join(f'{name}=[{class_index}]' for name in signature.class_inputs)}"
        )
    (name,) = signature.class_inputs
    return completed | {name: np.full_like(completed[name], class_index)}


def _pictures(
    inputs: Mapping[str, Array], signature_name: str, metadata: ModelMetadata
) -> frozenset[str]:
    """The inputs that hold files where the signature takes numbers."""
    specs = metadata.signatures[signature_name].inputs
    return frozenset(
        name
        for name, array in inputs.items()
        if array.dtype.kind == "O" and name in specs and not specs[name].is_string
    )


def _only(specs: Mapping[str, TensorSpec], signature_name: str) -> str:
    if len(specs) != 1:
        raise BadRequest(
            f'Signature "{signature_name}" has the inputs {", ".join(specs)}; give each by its name'
        )
    return next(iter(specs))
