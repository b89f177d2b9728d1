"""metrics.json's facts as a page to read."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(facts: Mapping[str, Any]) -> str:
    recipe, examples = facts["recipe"], facts["examples"]
    return "\n\n".join([
        f"# {recipe['name']}",
        f"{recipe['summary']}. Model `{recipe['model']}`, {facts['parameters']:,} parameters.",
        "## Results",
        table(("head", "accuracy on the test images"),
              [(name, f"{metrics['accuracy']:.4f}") for name, metrics in facts["heads"].items()]),
        "![Loss and accuracy](training.png)",
        "![Confusion](confusion.png)",
        "## Data",
        f"{facts['data']}: {examples['train']:,} images to train on, {examples['validation']:,} to "
        f"watch the training by, {examples['test']:,} held out for the figures above.",
        "## Signatures",
        table(("signature", "inputs", "outputs"),
              [(f"`{name}`", listed(sides["inputs"]), listed(sides["outputs"]))
               for name, sides in facts["signatures"].items()]),
        "Pixels are raw, 0 to 255; all preprocessing is inside the graph.",
        "## Settings",
        table(("setting", "value"), [(key, str(value)) for key, value in recipe.items()
                                     if key not in ("name", "summary")]),
        "Trained in " + f"{facts['seconds']:.0f} s with " + ", ".join(
            f"{name} {version}" for name, version in facts["versions"].items()) + ".",
    ]) + "\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}` {described}" for name, described in tensors.items())
