"""The names that Sluice, TensorFlow Serving and the Open Inference Protocol agree on, each once.

docs/contract.md says what a published model answers under them.
"""

from pathlib import PurePosixPath

from sluice.wire.protos.serving_pb2 import ModelVersionStatus

State = ModelVersionStatus.State  # of a version: START, LOADING, AVAILABLE, UNLOADING, END

DEFAULT_SIGNATURE = "serving_default"
PIXELS_SIGNATURE = "pixels"  # as the default one, each image input uint8
ENCODED_SIGNATURE = "encoded"  # each image input takes the bytes of a file
CLASSIFY_SIGNATURE = "classify"  # takes tf.Examples, by Classify alone

EXPLAIN_SIGNATURE, EXPLAIN_ENCODED_SIGNATURE = "explain", "explain_encoded"
EXPLAINED_BY = {  # of the same inputs, and the class
    DEFAULT_SIGNATURE: EXPLAIN_SIGNATURE,
    ENCODED_SIGNATURE: EXPLAIN_ENCODED_SIGNATURE,
}
LABELLED_SIGNATURE = "labelled"  # of a model that takes no picture
TAKE_FILES = (ENCODED_SIGNATURE, EXPLAIN_ENCODED_SIGNATURE)  # whose strings are pictures

# Which of a version's graphs a model server loads: the one with the first tag alone, or with that
# and another.
SERVING_TAG, BFLOAT16_TAG, GPU_TAG = "serve", "bf16", "gpu"
OPTIMIZE = ("none", "bf16", "gpu", "bf16,gpu")  # which ones a version is published with

# What a signature, or a task of MultiInference, says that it is for.
CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"

# Beside a classification head `label`: its best labels, and how sure the model is of each.
CLASSES_SUFFIX, SCORES_SUFFIX = "_classes", "_scores"

# Of `explain`: the class asked and explained, its score, and where in the picture it is seen; with
# the head's name before them where several heads name classes (`label_class`).
CLASS, SCORE, HEATMAP = "class", "score", "heatmap"
BEST_CLASS = -1  # asks for the one with the highest score

# Of `encoded`, where a version has it: how unlike the training images a row is; above 1, unlike.
NOVELTY = "novelty"

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
OIP_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

# In a version directory: requests that a model server runs before the version takes any, and what
# training measured.
WARMUP_FILE = PurePosixPath("assets.extra", "tf_serving_warmup_requests")
MAX_WARMUP_RECORDS = 1000  # TensorFlow Serving does not load a version with more
METRICS_FILE = "metrics.json"
