"""grpc.health.v1: whether the server, and each of its services, takes calls.

The messages are grpcio-health-checking's; not its servicers (looked at in 1.85.1).
Both keep a Watch open until the client hangs up, which would hold up every drain, and both ask for
each service's status one by one, where ours all change together.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from sluice.wire.contract import HEALTH_SERVICE
from sluice.wire.messages import read_or_abort

Context = grpc.aio.ServicerContext[Any, Any]

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


class HealthService:
    """One status for all the `services`, NOT_SERVING at first; "" is the server as a whole.

    >>> async def check(name: str) -> int:
    ...     health = HealthService(["tensorflow.serving.ModelService"])
    ...     await health.set(True)
    ...     return (await health.check(HealthCheckRequest(service=name), None)).status
    >>> asyncio.run(check("")) == SERVING
    True
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._status = NOT_SERVING
        self._ended = False
        self._changed = asyncio.Condition()

    async def set(self, serving: bool) -> None:
        async with self._changed:
            self._status = SERVING if serving else NOT_SERVING
            self._changed.notify_all()

    async def end(self) -> None:
        """NOT_SERVING for good; every Watch hears it and ends."""
        self._ended = True
        await self.set(False)

    async def check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service!r}")
        return HealthCheckResponse(status=self._status)

    async def watch(
        self, request: HealthCheckRequest, _: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        known = request.service in self._services
        told = None
        while True:
            status = self._status if known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                told = status
                yield HealthCheckResponse(status=status)
            elif self._ended:
                return
            else:
                async with self._changed:
                    await self._changed.wait()


def add_health(server: grpc.aio.Server, health: HealthService) -> None:
    """Answer grpc.health.v1 with it."""

    async def check(data: bytes, context: Context) -> HealthCheckResponse:
        request = await read_or_abort(HealthCheckRequest, data, context)
        return await health.check(request, context)

    async def watch(data: bytes, context: Context) -> AsyncIterator[HealthCheckResponse]:
        request = await read_or_abort(HealthCheckRequest, data, context)
        async for response in health.watch(request, context):
            yield response

    reply = HealthCheckResponse.SerializeToString
    handlers = {
        "Check": grpc.unary_unary_rpc_method_handler(check, response_serializer=reply),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, response_serializer=reply),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(HEALTH_SERVICE, handlers),)
    )
