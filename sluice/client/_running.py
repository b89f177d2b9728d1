"""Flows, run over a transport: by the calling thread, or by asyncio."""

import asyncio
import time
from typing import Protocol

from sluice.client._calls import Call, Flow, Pause, Result
from sluice.client.errors import ClientError


class Transport(Protocol):
    """One protocol to one server, for threads."""

    def send(self, call: Call[Result], timeout_s: float) -> Result:
        """The call's result. Raises a ClientError."""

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """One protocol to one server, for asyncio."""

    async def send(self, call: Call[Result], timeout_s: float) -> Result:
        """The call's result. Raises a ClientError."""

    async def close(self) -> None: ...


def run_flow(transport: Transport, flow: Flow[Result]) -> Result:
    """What the flow returns or raises."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                step = next(flow)
                continue
            try:
                reply = transport.send(step.call, step.timeout_s)
            except ClientError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
    except StopIteration as end:
        result: Result = end.value
        return result


async def run_flow_async(transport: AsyncTransport, flow: Flow[Result]) -> Result:
    """What the flow returns or raises."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                step = next(flow)
                continue
            try:
                reply = await transport.send(step.call, step.timeout_s)
            except ClientError as error:
                step = flow.throw(error)
            else:
                step = flow.send(reply)
    except StopIteration as end:
        result: Result = end.value
        return result
