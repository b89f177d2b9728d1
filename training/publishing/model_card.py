"""metrics.json's facts as a page to read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.publishing.listing import graph_lines

_PICTURES = {
    "training.png": "Loss and measures by epoch",
    "confusion.png": "Which class was taken for which",
    "mistakes.png": "The mistakes it was surest of",
    "masks.png": "True masks and answered ones",
    "samples.png": "Images that it drew",
}


def render(facts: Mapping[str, Any], directory: Path) -> str:
    sections = (
        *_head(facts),
        *results(facts, directory),
        *_data(facts),
        *novelty(facts["novelty"]),
        *graphs(facts["graphs"]),
        *_signatures(facts),
    )
    return "\n\n".join([*sections, *_making(facts)]) + "\n"


def _head(facts: Mapping[str, Any]) -> Iterator[str]:
    recipe = facts["recipe"]
    yield f"# {facts['name']}"
    yield (
        f"{recipe['summary']}. Recipe `{recipe['name']}`, model `{recipe['model']}`, "
        f"{facts['parameters']:,} parameters. Published {facts['published']}."
    )


def results(facts: Mapping[str, Any], directory: Path) -> Iterator[str]:
    """What was measured: by head and class, and the pictures of it that lie in `directory`.

    >>> facts = {"guessing": {"label": 0.5}, "heads": {"label": {"accuracy": 0.98}}}
    >>> next(results(facts, Path("no such version")))
    '## Results'
    """
    yield "## Results"
    guessing = facts["guessing"]
    yield table(
        ("head", "on the test images", "always answering the commonest class"),
        [
            (name, _measured(metrics), f"{guessing[name]:.4f}" if name in guessing else "")
            for name, metrics in facts["heads"].items()
        ],
    )
    for name, metrics in facts["heads"].items():
        for measure, title in (("per_class", "right"), ("iou_per_class", "iou")):
            if measure in metrics:
                yield table(
                    (name, title),
                    [(_cell(label), f"{value:.4f}") for label, value in metrics[measure].items()],
                )
    for file, title in _PICTURES.items():
        if (directory / file).exists():
            yield f"![{title}]({file})"


def _data(facts: Mapping[str, Any]) -> Iterator[str]:
    examples = facts["examples"]
    yield "## Data"
    yield (
        f"{facts['data']}: {examples['train']:,} images to train on, "
        f"{examples['validation']:,} to watch the training by, "
        f"{examples['test']:,} held out for the figures above."
    )


def novelty(facts: Mapping[str, Any]) -> Iterator[str]:
    """What the card says of it.

    >>> [*novelty({"absent": "it was left out"})]
    ['## Novelty', 'Not given: it was left out.']
    """
    yield "## Novelty"
    if "absent" in facts:
        yield f"Not given: {facts['absent']}."
        return
    yield (
        f"`encoded` says in `novelty` how unlike {facts['images']:,} images of its training a row "
        f"is. Above 1 it is unlike: {facts['quantile']:.1%} of {facts['held_out']:,} images held "
        f"out lie below (the threshold is a distance of "
        f"{facts['threshold']:.4g}, of {facts['features']:,} features)."
    )
    if "test" in facts:
        yield f"False alarms on {facts['test']:,} test images: {facts['false_alarms']:.2%}."


def graphs(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the card says of each graph, by its tags.

    >>> [*graphs({"serve": {"folded": 2}})]
    ['## Graphs', '- serve: 2 normalisations folded']
    """
    yield "## Graphs"
    yield "\n".join(f"- {line}" for line in graph_lines(facts))


def _signatures(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Signatures"
    yield table(
        ("signature", "inputs", "outputs"),
        [
            (f"`{name}`", listed(sides["inputs"]), listed(sides["outputs"]))
            for name, sides in facts["signatures"].items()
        ],
    )
    yield "Pixels are raw, 0 to 255; all preprocessing is inside the graph."
    yield explained(facts["explained"])


def explained(looked_at: Mapping[str, Mapping[str, str]]) -> str:
    """Where `explain` looks, of each head in each image: a layer, or "" for the pixels.

    >>> print(explained({"label": {"image": "conv"}}))
    - `explain` looks for `label` in `image` at what layer `conv` gives.
    """
    places = {"": "the slope of the pixels themselves"}
    lines = [
        f"- `explain` looks for `{head}` in `{image}` at "
        f"{places.get(layer, f'what layer `{layer}` gives')}."
        for head, images in looked_at.items()
        for image, layer in images.items()
    ]
    return "\n".join(lines) or "It has no `explain`."


def _making(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## How it was made"
    if facts["command"]:
        yield f"    {facts['command']}"
    recipe = facts["recipe"].items()
    yield table(
        ("setting", "value"),
        [(key, str(value)) for key, value in recipe if key not in ("name", "summary")],
    )
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    yield f"Trained in {facts['seconds']:.0f} s with {versions}."


def _cell(label: str) -> str:
    """A label may have anything in it."""
    return label.replace("|", "\\|").replace("\n", " ")


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
