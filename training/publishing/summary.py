"""What a run says at its end."""

from collections.abc import Iterator
from pathlib import Path

from training.data.dataset import Dataset
from training.publishing.evaluate import Evaluation, commonest


def lines(version: Path, dataset: Dataset, evaluation: Evaluation) -> Iterator[str]:
    """How good it is, against always answering the commonest class; and what to look at."""
    count = len(dataset.test)
    for name, head in dataset.heads.items():
        metrics = evaluation.metrics[name]
        if "accuracy" in metrics:
            label, share = commonest(dataset.test.targets[name], head.labels)
            yield (
                f"{name} accuracy {metrics['accuracy']:.1%} on {count:,} held-out images "
                f"(always answering {label!r}: {share:.1%})"
            )
        else:
            error = metrics["absolute_error"]
            yield f"{name} absolute error {error:.4g} on {count:,} held-out images"
    drawn = sorted(path.name for path in version.glob("*.png"))
    yield f"Pictures in {version}: {', '.join(drawn)}; all figures in model-card.md"
