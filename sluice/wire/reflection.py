"""grpc.reflection: what a tool needs in order to call a server without our .proto files.

Not grpcio-reflection's servicer (tried in 1.85.1): it answers `grpc.reflection.v1alpha` alone, `v1`
is UNIMPLEMENTED; it looks names up in one pool, protobuf's default or the one that it is given, and
ours is a second (protos/__init__.py), so that either our services or `grpc.health.v1.Health` would
be NOT_FOUND; and each open stream holds one of the threads that answer predictions.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from sluice.wire.messages import read_or_abort
from sluice.wire.protos import POOL
from sluice.wire.protos.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Answer reflection in both its versions, whose messages are the same on the wire."""
    listed = sorted({*services, *NAMES})

    async def answer_all(
        requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[ServerReflectionResponse]:
        async for data in requests:
            yield answer(await read_or_abort(ServerReflectionRequest, data, context), listed)

    handler = grpc.stream_stream_rpc_method_handler(
        answer_all, response_serializer=ServerReflectionResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in NAMES
        )
    )


def answer(request: ServerReflectionRequest, services: list[str]) -> ServerReflectionResponse:
    """One question's answer; what is not known is an error inside it.

    >>> reply = answer(
    ...     ServerReflectionRequest(list_services=""), ["tensorflow.serving.ModelService"]
    ... )
    >>> [service.name for service in reply.list_services_response.service]
    ['tensorflow.serving.ModelService']
    """
    response = ServerReflectionResponse(valid_host=request.host, original_request=request)
    kind = request.WhichOneof("message_request")
    if kind == "list_services":
        response.list_services_response.MergeFrom(
            ListServiceResponse(service=[ServiceResponse(name=name) for name in services])
        )
        return response
    file = _find_file(request) if kind in ("file_by_filename", "file_containing_symbol") else None
    if file is None:
        response.error_response.MergeFrom(
            ErrorResponse(
                error_code=grpc.StatusCode.NOT_FOUND.value[0],
                error_message=f"no .proto file here holds what was asked for: {request}".strip(),
            )
        )
    else:
        response.file_descriptor_response.MergeFrom(
            FileDescriptorResponse(file_descriptor_proto=_with_dependencies(file))
        )
    return response


def _find_file(request: ServerReflectionRequest) -> FileDescriptor | None:
    for pool in (POOL, descriptor_pool.Default()):  # the health service's file is in the latter
        try:
            if request.HasField("file_by_filename"):
                return pool.FindFileByName(request.file_by_filename)
            return pool.FindFileContainingSymbol(request.file_containing_symbol)
        except KeyError:
            continue
    return None


def _with_dependencies(file: FileDescriptor) -> list[bytes]:
    """The file and all it imports, each once."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current.name not in found:
            found[current.name] = current.serialized_pb
            waiting.extend(current.dependencies)
    return list(found.values())
