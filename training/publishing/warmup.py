"""The requests that a model server runs before a version takes traffic."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from sluice.wire.contract import (
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    ENCODED_SIGNATURE,
    PIXELS_SIGNATURE,
    WARMUP_FILE,
)
from sluice.wire.protos import serving_pb2, tensorflow_pb2
from sluice.wire.tensors import Array, encode_tensor
from training.publishing.trials import Trials

# Each is one more than a size that deploy/kubernetes/components/gpu/batching.config allows, and is
# filled up to the next one: every size is met once, and no request is larger than the 32 rows that
# servers on CPUs take.
GPU_ROWS = (2, 5, 17)


def write(trials: Trials, model_name: str, directory: Path, more_rows: Iterable[int] = ()) -> None:
    """One PredictionLog record per signature, each with that signature's first row; of those that
    answer for pixels and files also one for each of `more_rows`, with so many rows alike."""
    path = directory / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, trial in trials.items():
            spec = serving_pb2.ModelSpec(name=model_name, signature_name=signature)
            first = {name: array[:1] for name, array in trial.inputs.items()}
            if signature == CLASSIFY_SIGNATURE:
                log = _classify_log(spec, first)
            else:
                log = _predict_log(spec, {name: _whole(array) for name, array in first.items()})
            writer.write(log.SerializeToString(deterministic=True))
        for log in _alike(trials, model_name, more_rows):
            writer.write(log.SerializeToString(deterministic=True))


def _alike(
    trials: Trials, model_name: str, more_rows: Iterable[int]
) -> Iterator[serving_pb2.PredictionLog]:
    for rows in more_rows:
        for signature in (DEFAULT_SIGNATURE, PIXELS_SIGNATURE, ENCODED_SIGNATURE):
            if signature in trials:
                spec = serving_pb2.ModelSpec(name=model_name, signature_name=signature)
                inputs = trials[signature].inputs
                tensors = {name: _filled(array, rows) for name, array in inputs.items()}
                yield _predict_log(spec, tensors)


def _filled(array: Array, rows: int) -> tensorflow_pb2.TensorProto:
    """The first value of all, for every other: TensorFlow goes on with the last that there is."""
    tensor = encode_tensor(array.reshape(-1)[:1], content=False)
    tensor.tensor_shape.CopyFrom(_shape((rows, *array.shape[1:])))
    return tensor


def _shape(sizes: tuple[int, ...]) -> tensorflow_pb2.TensorShapeProto:
    dims = [tensorflow_pb2.TensorShapeProto.Dim(size=size) for size in sizes]
    return tensorflow_pb2.TensorShapeProto(dim=dims)


def _whole(array: Array) -> tensorflow_pb2.TensorProto:
    return encode_tensor(array, content=array.dtype != object)


def _predict_log(
    spec: serving_pb2.ModelSpec, tensors: dict[str, tensorflow_pb2.TensorProto]
) -> serving_pb2.PredictionLog:
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
