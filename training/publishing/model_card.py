"""metrics.json's facts as a page to read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PICTURES = {
    "training.png": "Loss and measures by epoch",
    "confusion.png": "Which class was taken for which",
    "mistakes.png": "The mistakes it was surest of",
    "masks.png": "True masks and answered ones",
    "samples.png": "Images that it drew",
}


def render(facts: Mapping[str, Any], directory: Path) -> str:
    recipe, examples = facts["recipe"], facts["examples"]
    return (
        "\n\n".join(
            [
                f"# {recipe['name']}",
                f"{recipe['summary']}. Model `{recipe['model']}`, "
                f"{facts['parameters']:,} parameters.",
                "## Results",
                table(
                    ("head", "on the test images"),
                    [(name, _measured(metrics)) for name, metrics in facts["heads"].items()],
                ),
                *(
                    f"![{title}]({file})"
                    for file, title in _PICTURES.items()
                    if (directory / file).exists()
                ),
                "## Data",
                f"{facts['data']}: {examples['train']:,} images to train on, "
                f"{examples['validation']:,} to watch the training by, "
                f"{examples['test']:,} held out for the figures above.",
                "## Signatures",
                table(
                    ("signature", "inputs", "outputs"),
                    [
                        (f"`{name}`", listed(sides["inputs"]), listed(sides["outputs"]))
                        for name, sides in facts["signatures"].items()
                    ],
                ),
                "Pixels are raw, 0 to 255; all preprocessing is inside the graph.",
                "## Settings",
                table(
                    ("setting", "value"),
                    [
                        (key, str(value))
                        for key, value in recipe.items()
                        if key not in ("name", "summary")
                    ],
                ),
                "Trained in "
                + f"{facts['seconds']:.0f} s with "
                + ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
                + ".",
            ]
        )
        + "\n"
    )


def _measured(metrics: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in metrics.items()
        if isinstance(value, float)
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """In Markdown.

    >>> table(("head", "accuracy"), [("label", "0.98")]).splitlines()
    ['| head | accuracy |', '| --- | --- |', '| label | 0.98 |']
    """
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def listed(tensors: Mapping[str, str]) -> str:
    """Tensors by name, in a line.

    >>> listed({"image": "float32[?,8,8,1]"})
    '`image` float32[?,8,8,1]'
    """
    return ", ".join(f"`{name}` {described}" for name, described in tensors.items())
