"""Why a model says what it says: the second call that `?explain=` makes beside a prediction.

It asks the signature that explains the one that was predicted by, for the same inputs and of the
same version, and is joined with others like any. docs/contract.md says what it takes and answers.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from service.gateway.answer import Answer
from service.gateway.caching import HIT
from service.gateway.caller import Caller
from service.gateway.classes import Labels, head_of, index_of
from service.gateway.errors import MalformedRequest, UnknownSignature
from service.gateway.predictions import Predictions
from service.gateway.query import TfsQuery
from service.gateway.showcase import Showcase
from service.gateway.signatures import Signatures
from service.gateway.threads import LARGE
from sluice.wire.contract import EXPLAINED_BY
from sluice.wire.explanations import prefix_of
from sluice.wire.model_ref import ModelRef
from sluice.wire.signature import Signature

BEST, NOT_ASKED = "true", "false"
Decode = Callable[[Signatures], TfsQuery]


async def explain(
    predictions: Predictions,
    model: ModelRef,
    query: TfsQuery,
    answer: Answer,
    asked: str,
    caller: Caller,
) -> tuple[TfsQuery, Answer]:
    """Why `answer` is what was answered to `query`: BEST of each head, or the class that is asked
    for (CLASS, HEAD:CLASS). Raises as `Predictions.infer` does, MalformedRequest for a class that
    is not known."""
    labels: Labels = {}
    repository = predictions.settings.model_repository
    if asked != BEST and repository:
        showcase = Showcase(Path(repository))
        labels = await predictions.aside(showcase.labels, model.name, answer.version)

    def decode(signatures: Signatures) -> TfsQuery:
        signature = _explaining(query.signature, signatures)
        inputs = dict(query.inputs)
        if asked != BEST:
            class_input, name = _class_input(signature, asked)
            index = index_of(name, head_of(class_input, signatures), answer.outputs, labels)
            rows = len(next(iter(inputs.values())))
            inputs[class_input] = np.full(rows, index, np.int32)
        return replace(query, signature=signature, inputs=inputs)

    version = ModelRef(model.name, answer.version)
    second = replace(caller, rows=0, queued_s=0.0, upstream_s=0.0, decode_s=0.0)
    try:
        return await predictions.infer(version, decode, second, size=LARGE + 1)
    finally:
        caller.signature = second.signature
        if caller.cache == HIT:  # what is answered is as fresh as the older of both
            caller.cache, caller.age_s = second.cache, max(caller.age_s, second.age_s)
        caller.queued_s += second.queued_s
        caller.upstream_s += second.upstream_s
        caller.decode_s += second.decode_s


def explainable(decode: Decode) -> Decode:
    """`decode`, which raises UnknownSignature where nothing explains what it asks for."""

    def checked(signatures: Signatures) -> TfsQuery:
        query = decode(signatures)
        _explaining(query.signature, signatures)
        return query

    return checked


def _explaining(signature: Signature, signatures: Signatures) -> Signature:
    name = EXPLAINED_BY.get(signature.name)
    if name is None:
        raise UnknownSignature(
            f"?explain= goes with the signatures {' and '.join(EXPLAINED_BY)}, not with "
            f'"{signature.name}"'
        )
    if name not in signatures:
        raise UnknownSignature(
            f'The model has no signature "{name}", so it cannot say why. A model that names the '
            "classes of pictures has one: publish it again (sluice train, sluice publish), and "
            "name the layer that is explained (--explain-layer) where none is found"
        )
    return signatures.get(name)


def _class_input(signature: Signature, asked: str) -> tuple[str, str]:
    """The input that takes the class that is asked for, and the class."""
    of = {prefix_of(name).removesuffix("_"): name for name in signature.class_inputs}
    if len(of) == 1:
        return signature.class_inputs[0], asked
    head, _, name = asked.partition(":")
    if head not in of:
        raise MalformedRequest(
            f"?explain=: several heads name classes; say HEAD:CLASS, the head one of "
            f"{', '.join(sorted(of))}"
        )
    return of[head], name
