"""From a trained model to a version directory that any TensorFlow Serving loads."""
