"""The requests that a model server runs before a version takes traffic."""

from pathlib import Path

import tensorflow as tf

from sluice.wire.protos import serving_pb2, tensorflow_pb2
from training.data.heads import Array
from training.publishing.trials import Trials

FILE = Path("assets.extra", "tf_serving_warmup_requests")


def write(trials: Trials, model_name: str, directory: Path) -> None:
    """One PredictionLog record per signature, each with that signature's first row."""
    path = directory / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, trial in trials.items():
            spec = serving_pb2.ModelSpec(name=model_name, signature_name=signature)
            first = {name: array[:1] for name, array in trial.inputs.items()}
            log = classify_log(spec, first) if signature == "classify" else predict_log(spec, first)
            writer.write(log.SerializeToString(deterministic=True))


def predict_log(spec: serving_pb2.ModelSpec, inputs: dict[str, Array]) -> serving_pb2.PredictionLog:
    tensors = {name: encode_tensor(array) for name, array in inputs.items()}
    request = serving_pb2.PredictRequest(model_spec=spec, inputs=tensors)
    return serving_pb2.PredictionLog(predict_log=serving_pb2.PredictLog(request=request))


def classify_log(
    spec: serving_pb2.ModelSpec, inputs: dict[str, Array]
) -> serving_pb2.PredictionLog:
    examples = [tensorflow_pb2.Example.FromString(raw) for raw in inputs["inputs"]]
    request = serving_pb2.ClassificationRequest(
        model_spec=spec,
        input=serving_pb2.Input(example_list=serving_pb2.ExampleList(examples=examples)),
    )
    return serving_pb2.PredictionLog(classify_log=serving_pb2.ClassifyLog(request=request))


def encode_tensor(array: Array) -> tensorflow_pb2.TensorProto:
    """float32, int32 and bytes, which is what requests for our signatures hold."""
    shape = tensorflow_pb2.TensorShapeProto(
        dim=[tensorflow_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    )
    if array.dtype == object:
        return tensorflow_pb2.TensorProto(
            dtype=tensorflow_pb2.DT_STRING, tensor_shape=shape, string_val=array.ravel().tolist()
        )
    dtype = {"float32": tensorflow_pb2.DT_FLOAT, "int32": tensorflow_pb2.DT_INT32}[array.dtype.name]
    return tensorflow_pb2.TensorProto(
        dtype=dtype,
        tensor_shape=shape,
        tensor_content=array.astype(array.dtype.newbyteorder("<")).tobytes(),
    )
