"""Services that ask nobody for a key: health and reflection.

Of a method that takes one message, grpc.aio reads it, as large as it may be, before it calls the
method. Here it is read as all others are (arrivals.py), which on the wire is the same.
"""

from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import grpc

from service.gateway.caller import Caller
from service.gateway.errors import GatewayError
from service.gateway.rpc.arrivals import Arrivals
from service.gateway.rpc.edge import Context, ending_of
from service.gateway.rpc.packing import small

Service = Any  # grpc.GenericRpcHandler and what it gives, whose stubs leave out what is in them
Method = Any


class OpenServices:
    """Stands for the server where services are added. A call has `longest_s`."""

    def __init__(self, server: grpc.aio.Server, arrivals: Arrivals, longest_s: float) -> None:
        self._server, self._arrivals, self._longest_s = server, arrivals, longest_s

    def add_generic_rpc_handlers(self, services: Iterable[Service]) -> None:
        self._server.add_generic_rpc_handlers([_Reading(each, self) for each in services])

    async def answer(self, method: Method, _: object, context: Context) -> Any:
        """A method's that takes one message and gives one."""
        try:
            message = await self._one(context)
        except GatewayError as error:
            ending = ending_of(error)
        else:
            return await method.unary_unary(message, context)
        await context.abort(*ending)
        raise AssertionError("abort raises")

    async def stream(self, method: Method, _: object, context: Context) -> AsyncIterator[Any]:
        """A method's that gives several. Its client may send all the time: to one that takes one
        message, what nobody will read."""
        try:
            with self._arrivals.open(Caller.within(self._longest_s)):
                if method.request_streaming:
                    replies = method.stream_stream(_all(context), context)
                else:
                    replies = method.unary_stream(await self._one(context), context)
                async for reply in replies:
                    yield reply
                return
        except GatewayError as error:
            ending = ending_of(error)
        await context.abort(*ending)

    async def _one(self, context: Context) -> bytes:
        return small(await self._arrivals.message(context.read, Caller.within(self._longest_s)))


async def _all(context: Context) -> AsyncIterator[bytes]:
    """A call's messages, one after the other."""
    while isinstance(message := await context.read(), bytes):
        yield small(message)


class _Reading(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The methods of `service`, each with the messages that are read here."""

    def __init__(self, service: Service, services: OpenServices) -> None:
        self._service, self._services = service, services

    def service(self, details: grpc.HandlerCallDetails) -> Method:
        method = self._service.service(details)
        if method is None:
            return None
        services, serializer = self._services, method.response_serializer
        if method.response_streaming:
            stream = partial(services.stream, method)
            return grpc.stream_stream_rpc_method_handler(stream, response_serializer=serializer)
        answer = partial(services.answer, method)
        return grpc.stream_unary_rpc_method_handler(answer, response_serializer=serializer)
