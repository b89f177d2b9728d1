"""The best labels of a classification: `<head>_classes` and `<head>_scores`, best first."""

from service.gateway.errors import MalformedRequest
from sluice.wire.contract import CLASSES_SUFFIX, SCORES_SUFFIX
from sluice.wire.tensors import Array


def keep_best(outputs: dict[str, Array], count: int) -> dict[str, Array]:
    """`outputs` with `count` labels and scores for each head ([N, k] -> [N, count]).

    Raises MalformedRequest where the model gives no labels, or fewer.
    """
    heads = [
        name.removesuffix(CLASSES_SUFFIX)
        for name in outputs
        if name.endswith(CLASSES_SUFFIX)
        and f"{name.removesuffix(CLASSES_SUFFIX)}{SCORES_SUFFIX}" in outputs
    ]
    if not heads:
        raise MalformedRequest(
            "?top_k= is for a model that gives labels (NAME_classes and "
            f"NAME_scores); this one gives {', '.join(sorted(outputs))}"
        )
    kept = dict(outputs)
    for name in [f"{head}{suffix}" for head in heads for suffix in (CLASSES_SUFFIX, SCORES_SUFFIX)]:
        if outputs[name].ndim != 2 or outputs[name].shape[1] < count:
            raise MalformedRequest(
                f"?top_k={count}: {name} has the shape {list(outputs[name].shape)}"
            )
        kept[name] = outputs[name][:, :count]
    return kept
