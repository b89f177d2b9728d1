"""Our .proto files say what TensorFlow Serving's say, and live beside them in one process."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import sluice.wire.protos

HERE = Path(__file__).parent
PROTOS = Path(sluice.wire.protos.__file__).parent
OFFICIAL = json.loads((HERE / "official.json").read_text())

# Text files of the model server that no published package describes; the numbers are those of
# TensorFlow Serving's sources (session_bundle_config, ssl_config and monitoring_config.proto).
UNPUBLISHED = {
    "tensorflow.serving.BatchingParameters",
    "tensorflow.serving.SSLConfig",
    "tensorflow.serving.MonitoringConfig",
    "tensorflow.serving.PrometheusConfig",
}


def load_snapshot():
    spec = spec_from_file_location("snapshot", HERE / "snapshot.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SNAPSHOT = load_snapshot()
OURS = {
    name: described
    for name, described in SNAPSHOT.describe(SNAPSHOT.our_files()).items()
    if not name.endswith("Entry")
}  # a map's entry is part of its field


@pytest.mark.parametrize("name", sorted(OURS.keys() - UNPUBLISHED))
def test_a_definition_is_the_official_one(name):
    # JSON has no tuples, and its round trip makes the two comparable.
    ours = json.loads(json.dumps(OURS[name]))
    assert {part: OFFICIAL[name].get(part) for part in ours} == ours


def test_the_unpublished_are_still_unpublished():
    assert not OFFICIAL.keys() & UNPUBLISHED


def test_generated_code_is_up_to_date(tmp_path):
    # In a process of its own: protoc's library and TensorFlow's crash in one.
    subprocess.run([sys.executable, "-m", "sluice.wire.protos.generate", tmp_path], check=True)
    generated = sorted((tmp_path / "sluice" / "wire" / "protos").glob("*_pb2*"))
    assert len(generated) > 8
    for path in generated:
        assert path.read_text() == (PROTOS / path.name).read_text(), f"make protos: {path.name}"


TENSORFLOW = "import tensorflow; from tensorflow.core.framework import tensor_pb2 as theirs"
OWN = "from sluice.wire.protos import serving_pb2, tensorflow_pb2 as ours"
EXCHANGE = """
tensor = ours.TensorProto(dtype=1, float_val=[1.5])
assert type(tensor) is not theirs.TensorProto
assert theirs.TensorProto.FromString(tensor.SerializeToString()).float_val == [1.5]
"""


@pytest.mark.parametrize(
    "imports", [[TENSORFLOW, OWN], [OWN, TENSORFLOW]], ids=["tensorflow first", "ours first"]
)
def test_ours_and_tensorflows_share_a_process(imports):
    code = "\n".join([*imports, EXCHANGE])
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
