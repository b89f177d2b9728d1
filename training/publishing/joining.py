"""A second graph into the SavedModel of a first: two MetaGraphs, one file of variables."""

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from sluice.wire.versions import SAVED_MODEL

_VARIABLES = "variables/variables"


def join(directory: Path, second: Path, tags: tuple[str, ...]) -> None:
    """The graph of the SavedModel `second` into that of `directory`, under `tags`.

    TensorFlow writes one graph a SavedModel. A loader takes the one with its tags, and restores of
    the variables those that it names: what both call alike is there once, and must be alike.
    `second` is removed.
    """
    proto = _read(directory)
    [graph] = _read(second).meta_graphs
    del graph.meta_info_def.tags[:]
    graph.meta_info_def.tags.extend(tags)
    proto.meta_graphs.append(graph)
    _join_variables(directory, second)
    for asset in (second / "assets").glob("*"):
        (directory / "assets").mkdir(exist_ok=True)
        if not (directory / "assets" / asset.name).exists():
            shutil.move(asset, directory / "assets")
    (directory / SAVED_MODEL).write_bytes(proto.SerializeToString(deterministic=True))
    shutil.rmtree(second)


def bytes_of(directory: Path) -> int:
    """What a SavedModel of one graph takes on the disk.

    >>> bytes_of(Path("no-such-folder"))
    0
    """
    files = [directory / SAVED_MODEL, *directory.glob("variables/*")]
    return sum(file.stat().st_size for file in files if file.exists())


def _read(directory: Path) -> saved_model_pb2.SavedModel:
    return saved_model_pb2.SavedModel.FromString((directory / SAVED_MODEL).read_bytes())


def _join_variables(directory: Path, second: Path) -> None:
    tensors: dict[str, Any] = {}
    for each in (second, directory):  # the first graph's own come last, and stay
        reader = tf.train.load_checkpoint(str(each / _VARIABLES))
        tensors |= {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    for file in (directory / "variables").iterdir():
        file.unlink()
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(directory / _VARIABLES),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.convert_to_tensor(tensors[name]) for name in names],
    )


def remove(second: Path) -> None:
    """What was written of a graph that is left out after all.

    >>> remove(Path("no-such-folder"))
    """
    shutil.rmtree(second, ignore_errors=True)
