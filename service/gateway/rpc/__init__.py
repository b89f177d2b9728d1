"""gRPC at the gateway: the same dialects, errors and limits as over HTTP, in the same workers."""
