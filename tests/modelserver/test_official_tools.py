"""TensorFlow's own tools against the twin: the official stubs, and saved_model_cli."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


def stubs(address):
    channel = grpc.insecure_channel(address)
    return (
        prediction_service_pb2_grpc.PredictionServiceStub(channel),
        model_service_pb2_grpc.ModelServiceStub(channel),
    )


@pytest.fixture(scope="module")
def predictions(modelserver):
    return stubs(modelserver.address)[0]


def spec(name, **more):
    return model_pb2.ModelSpec(name=name, **more)


def examples(*values):
    listed = input_pb2.ExampleList(
        examples=[
            tf.train.Example(
                features=tf.train.Features(
                    feature={"x": tf.train.Feature(float_list=tf.train.FloatList(value=[value]))}
                )
            )
            for value in values
        ]
    )
    return input_pb2.Input(example_list=listed)


class TestOfficialStubs:
    """`affine` version 2 is y = x / 2 + 3: its scores are [1 - y, y]."""

    def test_predict(self, predictions):
        request = predict_pb2.PredictRequest(model_spec=spec("pair"))
        image, meta = np.ones((2, 2, 2, 1), "f4"), np.float32([[1, 2, 3], [4, 5, 6]])
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(image))
        request.inputs["meta"].CopyFrom(tf.make_tensor_proto(meta))
        outputs = predictions.Predict(request, timeout=30).outputs
        assert tf.make_ndarray(outputs["score"]).tolist() == [[10], [19]]
        assert tf.make_ndarray(outputs["ranks"]).tolist() == [[4, 1, 2], [4, 4, 5]]

    def test_classify(self, predictions):
        reply = predictions.Classify(
            classification_pb2.ClassificationRequest(
                model_spec=spec("affine", signature_name="classify"), input=examples(0.25, 1)
            ),
            timeout=30,
        )
        [first, second] = [
            [(each.label, each.score) for each in row.classes]
            for row in reply.result.classifications
        ]
        assert first == [("low", -2.125), ("high", 3.125)]
        assert second == [("low", -2.5), ("high", 3.5)]

    def test_regress(self, predictions):
        reply = predictions.Regress(
            regression_pb2.RegressionRequest(
                model_spec=spec("affine", signature_name="regress"), input=examples(0.25, 1)
            ),
            timeout=30,
        )
        assert [each.value for each in reply.result.regressions] == [3.125, 3.5]

    def test_multi_inference(self, predictions):
        tasks = [
            inference_pb2.InferenceTask(
                model_spec=spec("affine", signature_name=f"{kind}"),
                method_name=f"tensorflow/serving/{kind}",
            )
            for kind in ("classify", "regress")
        ]
        reply = predictions.MultiInference(
            inference_pb2.MultiInferenceRequest(tasks=tasks, input=examples(1)), timeout=30
        )
        classified, regressed = reply.results
        [scores] = classified.classification_result.classifications
        assert [each.score for each in scores.classes] == [-2.5, 3.5]
        assert [each.value for each in regressed.regression_result.regressions] == [3.5]

    def test_metadata(self, predictions):
        reply = predictions.GetModelMetadata(
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec("pair"), metadata_field=["signature_def"]
            ),
            timeout=30,
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        assert sorted(signatures.signature_def["serving_default"].inputs) == ["image", "meta"]

    def test_reload_and_status(self, launch_modelserver, conformance_models):
        server = launch_modelserver(
            "--model_name=pair", f"--model_base_path={conformance_models}/pair"
        )
        models = stubs(server.address)[1]
        config = model_server_config_pb2.ModelServerConfig()
        config.model_config_list.config.add(
            name="other", model_platform="tensorflow", base_path=f"{conformance_models}/affine"
        )
        reply = models.HandleReloadConfigRequest(
            model_management_pb2.ReloadConfigRequest(config=config), timeout=60
        )
        assert reply.status.error_code == 0, reply.status.error_message
        [status] = models.GetModelStatus(
            get_model_status_pb2.GetModelStatusRequest(model_spec=spec("other")), timeout=30
        ).model_version_status
        assert (status.version, status.state) == (3, AVAILABLE)


def saved_model_cli(*arguments):
    """What the tool prints; a process of its own, as a user runs it."""
    done = subprocess.run(
        [Path(sys.executable).with_name("saved_model_cli"), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.slow
class TestSavedModelCli:
    """The model in the directory, run by the tool, answers as the same model served."""

    def test_it_shows_the_signatures_that_are_served(self, predictions, conformance_models):
        shown = saved_model_cli(
            "show", "--dir", conformance_models / "affine/2", "--tag_set", "serve"
        )
        reply = predictions.GetModelMetadata(
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec("affine"), metadata_field=["signature_def"]
            ),
            timeout=30,
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        assert signatures.signature_def
        for name in signatures.signature_def:
            assert f'SignatureDef key: "{name}"' in shown

    def test_a_run_on_arrays(self, predictions, conformance_models, tmp_path):
        random = np.random.default_rng(7)
        inputs = {
            "image": random.random((3, 2, 2, 1), np.float32),
            "meta": random.random((3, 3), np.float32),
        }
        for name, array in inputs.items():
            np.save(tmp_path / name, array)
        saved_model_cli(
            "run",
            "--dir",
            conformance_models / "pair/1",
            "--tag_set",
            "serve",
            "--signature_def",
            "serving_default",
            "--outdir",
            tmp_path,
            "--inputs",
            ";".join(f"{name}={tmp_path}/{name}.npy" for name in inputs),
        )
        request = predict_pb2.PredictRequest(model_spec=spec("pair"))
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        outputs = predictions.Predict(request, timeout=30).outputs
        for name in ("score", "ranks"):
            np.testing.assert_array_equal(
                tf.make_ndarray(outputs[name]), np.load(tmp_path / f"{name}.npy")
            )

    def test_a_run_on_examples(self, predictions, conformance_models, tmp_path):
        values = [0.25, -3.5]
        saved_model_cli(
            "run",
            "--dir",
            conformance_models / "affine/2",
            "--tag_set",
            "serve",
            "--signature_def",
            "regress",
            "--outdir",
            tmp_path,
            "--input_examples",
            "inputs=" + json.dumps([{"x": [value]} for value in values]),
        )
        reply = predictions.Regress(
            regression_pb2.RegressionRequest(
                model_spec=spec("affine", signature_name="regress"), input=examples(*values)
            ),
            timeout=30,
        )
        assert [each.value for each in reply.result.regressions] == np.load(
            tmp_path / "outputs.npy"
        ).ravel().tolist()
