"""What a model repository holds: `sluice models`."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sluice.wire.contract import METRICS_FILE
from sluice.wire.labels import labels_in_force
from sluice.wire.rollout_files import as_written, read_rollout
from sluice.wire.rollouts import Rollout
from sluice.wire.saved_model import BadSavedModel, read_signatures
from sluice.wire.versions import (
    find_versions,
    survey,
    why_no_saved_model,
    withdrawn_versions,
)

_SHARD = re.compile(r"variables\.data-\d+-of-(\d+)")


@dataclass(frozen=True)
class Published:
    """One version. metrics: by head, empty for a SavedModel that Sluice did not make. graphs: what
    metrics.json says of each, by its tags. broken: why no model server can load it, "" where one
    can. live: the one that a rollout holds, or the newest that one can load.
    """

    model: str
    version: int
    signatures: tuple[str, ...] = ()
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    graphs: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: str = ""
    live: bool = False

    @property
    def measured(self) -> str:
        """`label accuracy 0.9861`, one measure for each head."""
        found = []
        for head, metrics in self.metrics.items():
            measure = next(
                name for name in ("iou", "accuracy", "absolute_error") if name in metrics
            )
            found.append(f"{head} {measure.replace('_', ' ')} {metrics[measure]:.4f}")
        return ", ".join(found)

    @property
    def state(self) -> str:
        if self.broken:
            return "broken"
        return "live" if self.live else ""


def published(repository: Path) -> Iterator[Published]:
    """By model, oldest version first; nothing where there is no such folder."""
    for name, directory in survey(repository)[0].items() if repository.is_dir() else ():
        versions = [
            _describe(name, version, path) for version, path in find_versions(directory).items()
        ]
        newest = max((each.version for each in versions if not each.broken), default=None)
        rollout = _rollout(directory)
        live = rollout.answering if rollout else newest
        yield from (replace(each, live=each.version == live) for each in versions)


def _rollout(directory: Path) -> Rollout | None:
    try:
        return read_rollout(directory)
    except (OSError, ValueError):  # it is told where the labels are
        return None


def _describe(model: str, version: int, path: Path) -> Published:
    try:
        if reason := why_no_saved_model(path):
            return Published(model, version, broken=reason)
        facts = _facts(path)
        if "files" in facts:
            reason = _why_not_whole(path, facts["files"])
            signatures = tuple(facts["signatures"])
        else:
            signatures, reason = _look_into(path)
        heads, graphs = facts.get("heads", {}), facts.get("graphs", {})
        return Published(model, version, signatures, heads, graphs, reason)
    except OSError as error:
        return Published(model, version, broken=f"{error.filename}: {error.strerror}")


def _facts(path: Path) -> dict[str, Any]:
    """What training wrote down; {} of another's model, and where it cannot be read."""
    try:
        facts = json.loads((path / METRICS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def sizes_of_files(version: Path) -> dict[str, int]:
    """In bytes, of what a model server reads, so that half a copy is known for one.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     _ = Path(version, "saved_model.pb").write_bytes(b"graph")
    ...     sizes_of_files(Path(version))
    {'saved_model.pb': 5}
    """
    return {
        path.relative_to(version).as_posix(): path.stat().st_size
        for path in sorted([*version.glob("*.pb"), *version.glob("variables/*")])
    }


def _why_not_whole(path: Path, sizes: dict[str, int]) -> str:
    there = sizes_of_files(path)
    for name, size in sizes.items():
        if name not in there:
            return f"{path / name} is missing: copy the version again"
        if there[name] != size:
            return f"{path / name} has {there[name]:,} of {size:,} bytes: copy the version again"
    return ""


def _look_into(path: Path) -> tuple[tuple[str, ...], str]:
    """The signatures of another's model, and why it cannot be loaded."""
    try:
        signatures = tuple(read_signatures(path))
    except BadSavedModel as error:
        return (), str(error)
    if not signatures:
        return (), f"the SavedModel in {path} has no signature under the tag serve"
    return signatures, _why_no_variables(path / "variables")


def _why_no_variables(directory: Path) -> str:
    shards = [found for path in directory.glob("*") if (found := _SHARD.fullmatch(path.name))]
    if any(int(found[1]) != len(shards) for found in shards):
        return f"{directory} holds {len(shards)} of {int(shards[0][1])} parts: copy it again"
    if shards and not (directory / "variables.index").exists():
        return f"{directory / 'variables.index'} is missing: copy the version again"
    return ""


def as_json(repository: Path) -> dict[str, Any]:
    """What `sluice models --json` prints; docs/operations.md says what each key is.

    >>> as_json(Path("no-such-folder"))
    {'repository': 'no-such-folder', 'models': [], 'no_models': {}}
    """
    models, others = survey(repository) if repository.is_dir() else ({}, {})
    by_model: dict[str, list[Published]] = {name: [] for name in models}
    for each in published(repository):
        by_model[each.model].append(each)
    return {
        "repository": str(repository),
        "models": [_model_as_json(models[name], found) for name, found in by_model.items()],
        "no_models": others,
    }


def _model_as_json(directory: Path, served: Sequence[Published]) -> dict[str, Any]:
    fault, labels = None, {}
    try:
        labels = labels_in_force(directory)
    except (ValueError, OSError) as error:
        fault = str(error)
    paths, rollout = find_versions(directory), _rollout(directory)
    withdrawn = {
        number: path
        for number, path in withdrawn_versions(directory).items()
        if number not in paths
    }
    taken_out = [_describe(directory.name, number, path) for number, path in withdrawn.items()]
    versions = [
        _version_as_json(each, paths[each.version], each.state or "older", labels)
        for each in served
    ] + [_version_as_json(each, withdrawn[each.version], "withdrawn", labels) for each in taken_out]
    return {
        "name": directory.name,
        "live": next((each.version for each in served if each.live), None),
        "labels": labels,
        "labels_fault": fault,
        "versions": sorted(versions, key=lambda each: int(each["version"])),
        "rollouts": [as_written(each) for each in rollout.remembered] if rollout else [],
    }


def _version_as_json(
    found: Published, path: Path, state: str, labels: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "version": found.version,
        "state": state,
        "broken": found.broken or None,
        "labels": [label for label, number in labels.items() if number == found.version],
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "signatures": list(found.signatures),
        "metrics": found.metrics,
        "graphs": found.graphs,
    }


def table(repository: Path) -> str:
    """For people: a line for each version, columns aligned; below, what is broken and why.

    >>> print(table(Path("no-such-folder")))
    MODEL  VERSION  STATE  SIGNATURES  ON TEST IMAGES
    """
    found = [*published(repository)]
    rows = [("MODEL", "VERSION", "STATE", "SIGNATURES", "ON TEST IMAGES")]
    rows += [
        (each.model, str(each.version), each.state, ", ".join(each.signatures), each.measured)
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [
        f"{each.model} {each.version} is broken: {each.broken}" for each in found if each.broken
    ]
    lines += [
        f"{each.model} {each.version}, graph {line}"
        for each in found
        if len(each.graphs) > 1 or any("batch_encoded" in graph for graph in each.graphs.values())
        for line in graph_lines(each.graphs)
    ]
    models, others = survey(repository) if repository.is_dir() else ({}, {})
    for name, directory in models.items():
        lines += _rollout_lines(name, directory)
    return "\n".join([*lines, *(f"{name} is no model: {why}" for name, why in others.items())])


def _rollout_lines(model: str, directory: Path) -> Iterator[str]:
    rollout = _rollout(directory)
    for each in rollout.remembered if rollout else ():
        for event in each.history:
            yield f"{model} {each.next}, rolled out after {each.live}: {event}"


def graph_lines(graphs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What is known of each graph of a version, in a line each.

    >>> [*graph_lines({"serve": {"folded": 2}, "serve,bf16": {"absent": "label falls"}})]
    ['serve: 2 normalisations folded', 'serve,bf16: left out, as label falls']
    """
    for tags, graph in graphs.items():
        yield f"{tags}: {', '.join(_said(graph)) or 'every layer as Keras has it'}"


def _said(graph: Mapping[str, Any]) -> Iterator[str]:
    if "absent" in graph:
        yield f"left out, as {graph['absent']}"
        return
    if folded := graph.get("folded"):
        yield f"{folded:,} normalisations folded"
    if rows := graph.get("batch_encoded"):
        yield f"`encoded` joins calls, up to {rows:,} rows"
    if precision := graph.get("precision"):
        instead_of = graph.get("instead_of", {}).items()
        yield f"in {precision}" + "".join(f" (in {name} {why})" for name, why in instead_of)
    if "bytes" in graph:
        yield f"{graph['bytes'] / 1e6:,.1f} MB"
    if "memory" in graph:
        yield f"{graph['memory'] / 1e6:,.0f} MB of memory"
    if speeds := graph.get("images_per_s"):
        yield _speeds_said(speeds)
    if weights := graph.get("weights"):
        yield _weights_said(weights)
    if why := graph.get("unmeasured"):
        yield f"speed not measured: {why}"
    for head, share in graph.get("agreement", {}).items():
        rows = f"{graph['rows']:,} rows{', moved ones too' if graph['moved'] else ''}"
        yield f"the same {head} as serve for {share:.2%} of {rows}"
    for head, found in graph.get("measures", {}).items():
        yield f"{head} {found['measure']} {found['this']:.2%} where serve has {found['serve']:.2%}"


def _speeds_said(speeds: Mapping[str, float]) -> str:
    by_batch = ", ".join(f"{speed:,.0f} at {batch}" for batch, speed in speeds.items())
    return f"images a second: {by_batch}"


def _weights_said(weights: Mapping[str, Any]) -> str:
    figures = "; ".join(
        f"{name} {found['bytes'] / 1e6:,.1f} MB, in a model server {found['held'] / 1e6:,.0f} MB, "
        f"{_speeds_said(found['images_per_s'])}"
        for name in ("variables", "constants")
        if (found := weights.get(name))
    )
    where = "as constants" if weights["in"] == "constants" else "in variables"
    return f"weights {where}, as {weights['because']}" + (f" ({figures})" if figures else "")
