"""Services that ask nobody for a key: health and reflection.

Of a method that takes one message, grpc.aio reads it, as large as it may be, before it calls the
method. Here it is read as all others are (arrivals.py), which on the wire is the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc

from service.gateway.caller import Caller
from service.gateway.errors import GatewayError
from service.gateway.rpc.arrivals import Arrivals, Read
from service.gateway.rpc.edge import Context, ending_of
from service.gateway.rpc.packing import is_packed, unpack

MOST_BYTES = 1 << 16  # of a message: a name or two
Message = TypeVar("Message", bytes, bytes | None)
Service = Any  # grpc.GenericRpcHandler and what it gives, whose stubs leave out what is in them
Method = Any


class OpenServices:
    """Stands for the server where services are added. A message has `longest_s` to come."""

    def __init__(self, server: grpc.aio.Server, arrivals: Arrivals, longest_s: float) -> None:
        self._server, self._arrivals, self._longest_s = server, arrivals, longest_s

    def add_generic_rpc_handlers(self, services: Iterable[Service]) -> None:
        self._server.add_generic_rpc_handlers([_Reading(each, self) for each in services])

    async def one(self, context: Context) -> bytes:
        """The call's message, or the call's end."""
        return await self._read(self._arrivals.message, context)

    async def all(self, context: Context) -> AsyncIterator[bytes]:
        """The call's messages, one after the other."""
        while (message := await self._read(self._arrivals.next, context)) is not None:
            yield message

    async def _read(
        self, take: Callable[[Read, Caller], Awaitable[Message]], context: Context
    ) -> Message:
        try:
            message = await take(context.read, Caller.within(self._longest_s))
            return unpack(message, MOST_BYTES) if message and is_packed(message) else message
        except GatewayError as error:
            ending = ending_of(error)
        await context.abort(*ending)
        raise AssertionError("abort raises")


class _Reading(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The methods of `service`, each with the messages that are read here."""

    def __init__(self, service: Service, messages: OpenServices) -> None:
        self._service, self._messages = service, messages

    def service(self, details: grpc.HandlerCallDetails) -> Method:
        method = self._service.service(details)
        if method is None:
            return None
        messages, serializer = self._messages, method.response_serializer

        async def answer(_: object, context: Context) -> Any:
            return await method.unary_unary(await messages.one(context), context)

        async def stream(_: object, context: Context) -> AsyncIterator[Any]:
            if method.request_streaming:
                replies = method.stream_stream(messages.all(context), context)
            else:
                replies = method.unary_stream(await messages.one(context), context)
            async for reply in replies:
                yield reply

        if method.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serializer)
        return grpc.stream_unary_rpc_method_handler(answer, response_serializer=serializer)
