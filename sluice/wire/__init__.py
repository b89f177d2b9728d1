"""The wire: messages, tensors and lists of models as bytes, for servers and clients alike."""
