"""What a run sees to outside of itself: Keras' global state, TensorFlow's log, the disk."""
