"""Which of a version's graphs is loaded: `--saved_model_tags`."""

from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from sluice.wire.contract import BFLOAT16_TAG, SERVING_TAG
from sluice.wire.processor import CPUINFO, computes_bfloat16
from sluice.wire.versions import SAVED_MODEL

AUTO = "auto"


def tags_to_load(version: Path, asked: str, cpuinfo: Path = CPUINFO) -> list[str]:
    """The tags of `asked`, which has commas between; for AUTO those of the graph in bfloat16 where
    the version has one and the CPU instructions for it, without which it takes twice as long."""
    if asked != AUTO:
        return asked.split(",")
    best = [SERVING_TAG, BFLOAT16_TAG]
    return best if computes_bfloat16(cpuinfo) and {*best} in graphs_of(version) else [SERVING_TAG]


def graphs_of(version: Path) -> list[set[str]]:
    """The tags of each graph of a SavedModel; none of what is no SavedModel."""
    try:
        proto = SavedModel.FromString((version / SAVED_MODEL).read_bytes())
    except (OSError, DecodeError):
        return []
    return [{*graph.meta_info_def.tags} for graph in proto.meta_graphs]


def why_no_graph(version: Path, tags: list[str]) -> str | None:
    """What is said of a version that has no graph with just these tags; None of one that has it, or
    that cannot be read."""
    graphs = graphs_of(version)
    if not graphs or {*tags} in graphs:
        return None
    there = " and ".join(",".join(sorted(each, key=_serve_first)) or "no tag" for each in graphs)
    return (
        f"the SavedModel in {version} has no graph with the tags {','.join(tags)}, but one with "
        f"{there}: start with --saved_model_tags={AUTO}, or publish the version with that graph"
    )


def _serve_first(tag: str) -> tuple[bool, str]:
    return tag != SERVING_TAG, tag
