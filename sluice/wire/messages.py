"""Messages out of bytes, within a gRPC method.

Left to gRPC, bytes that are no message are UNKNOWN to the client, and a traceback each in the
server's log, which a client could fill with them.
"""

from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

AnyMessage = TypeVar("AnyMessage", bound=Message)


async def read_or_abort(
    kind: type[AnyMessage], data: bytes, context: "grpc.aio.ServicerContext[Any, Any]"
) -> AnyMessage:
    """The message in `data`; the call is INVALID_ARGUMENT if there is none."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"The message cannot be read as a {kind.DESCRIPTOR.full_name}: {error}",
        )
        raise AssertionError("abort raises") from error
