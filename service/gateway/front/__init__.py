"""What accepts connections in a worker's event loop: HTTP, gRPC and the admin port.

docs/decisions/0011-an-event-loop-in-front-of-flask.md tells why.
"""
