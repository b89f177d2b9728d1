"""The requests that a model server runs before a version takes traffic."""

from pathlib import Path

import tensorflow as tf

from sluice.wire.contract import CLASSIFY_SIGNATURE, WARMUP_FILE
from sluice.wire.protos import serving_pb2, tensorflow_pb2
from sluice.wire.tensors import Array, encode_tensor
from training.publishing.trials import Trials


def write(trials: Trials, model_name: str, directory: Path) -> None:
    """One PredictionLog record per signature, each with that signature's first row."""
    path = directory / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, trial in trials.items():
            spec = serving_pb2.ModelSpec(name=model_name, signature_name=signature)
            first = {name: array[:1] for name, array in trial.inputs.items()}
            log = (_classify_log if signature == CLASSIFY_SIGNATURE else _predict_log)(spec, first)
            writer.write(log.SerializeToString(deterministic=True))


def _predict_log(
    spec: serving_pb2.ModelSpec, inputs: dict[str, Array]
) -> serving_pb2.PredictionLog:
    tensors = {
        name: encode_tensor(array, content=array.dtype != object) for name, array in inputs.items()
    }
    request = serving_pb2.PredictRequest(model_spec=spec, inputs=tensors)
    return serving_pb2.PredictionLog(predict_log=serving_pb2.PredictLog(request=request))


def _classify_log(
    spec: serving_pb2.ModelSpec, inputs: dict[str, Array]
) -> serving_pb2.PredictionLog:
    examples = [tensorflow_pb2.Example.FromString(raw) for raw in inputs["inputs"]]
    request = serving_pb2.ClassificationRequest(
        model_spec=spec,
        input=serving_pb2.Input(example_list=serving_pb2.ExampleList(examples=examples)),
    )
    return serving_pb2.PredictionLog(classify_log=serving_pb2.ClassifyLog(request=request))
