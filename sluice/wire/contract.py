"""The names that Sluice, TensorFlow Serving and the Open Inference Protocol agree on, each once.

docs/contract.md says what a published model answers under them.
"""

from pathlib import PurePosixPath

DEFAULT_SIGNATURE = "serving_default"
ENCODED_SIGNATURE = "encoded"  # each image input takes the bytes of a file

# Beside a classification head `label`: its best labels, and how sure the model is of each.
CLASSES_SUFFIX, SCORES_SUFFIX = "_classes", "_scores"

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
OIP_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

# In a version directory: requests that a model server runs before the version takes any.
WARMUP_FILE = PurePosixPath("assets.extra", "tf_serving_warmup_requests")
