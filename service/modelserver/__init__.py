"""The embedded twin of TensorFlow Serving: its gRPC services, flags, files and behaviour.

The only part of `service` that imports tensorflow, and it imports nothing of the gateway.
"""
