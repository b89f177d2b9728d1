"""How a SavedModel on disk is called, without TensorFlow."""

from pathlib import Path

from google.protobuf.message import DecodeError

from sluice.wire.contract import SERVING_TAG
from sluice.wire.protos.tensorflow_pb2 import SavedModel, SignatureDef
from sluice.wire.versions import SAVED_MODEL

_NOT_SIGNATURES = {"__saved_model_init_op"}  # TensorFlow keeps its own start-up among them


class BadSavedModel(ValueError):
    """What is there cannot be read as one."""


def read_signatures(version: Path) -> dict[str, SignatureDef]:
    """The signatures that a model server serves of a version's directory, by name, sorted.

    Raises OSError, and BadSavedModel for a `saved_model.pb` that is none.

    >>> from tempfile import TemporaryDirectory
    >>> model = SavedModel()
    >>> graph = model.meta_graphs.add()
    >>> graph.meta_info_def.tags.append("serve")
    >>> graph.signature_def["serving_default"].method_name = "tensorflow/serving/predict"
    >>> with TemporaryDirectory() as version:
    ...     _ = Path(version, "saved_model.pb").write_bytes(model.SerializeToString())
    ...     list(read_signatures(Path(version)))
    ['serving_default']
    """
    file = version / SAVED_MODEL
    try:
        model = SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise BadSavedModel(f"{file} cannot be read: copy the version again") from error
    for graph in model.meta_graphs:
        if [*graph.meta_info_def.tags] == [SERVING_TAG]:
            names = sorted({*graph.signature_def} - _NOT_SIGNATURES)
            return {name: graph.signature_def[name] for name in names}
    return {}
