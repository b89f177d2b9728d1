"""Connections that hold on to a gateway, from a process of their own.

`python -m tests.system.crowd PORT MANY SECONDS`, in the root of the repository.

Each connects again as soon as the gateway has closed it. Prints, as JSON, how long it bore those of
each kind, seconds.
"""

import asyncio
import json
import random
import resource
import sys
from typing import NamedTuple

from tests.system.load import Connection

STARTED_HEAD = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: localhost\r\n"
WHOLE_HEAD = STARTED_HEAD + b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
LATER_S = 0.5  # at most, between two connections of the same client


class Kind(NamedTuple):
    """So many send `first` at once, then a byte of `drip` a second."""

    count: int
    first: bytes
    drip: bytes


def kinds(many: int) -> dict[str, Kind]:
    return {
        "one byte": Kind(64, b"P", b""),
        "silent": Kind(many, b"", b""),
        "slow heads": Kind(many, STARTED_HEAD, b"X"),
        "slow bodies": Kind(many // 2, WHOLE_HEAD, b"1"),
        "bodies that stop": Kind(many - many // 2, WHOLE_HEAD, b""),
    }


async def hold_on(port: int, kind: Kind, until: float, stays: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        transport, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        began = loop.time()
        transport.write(kind.first)
        while connection.lost is None:
            await asyncio.sleep(1)
            transport.write(kind.drip)
        stays.append(connection.lost_at - began)
        await asyncio.sleep(random.uniform(0, LATER_S))


async def crowd(port: int, many: int, seconds: float) -> dict[str, list[float]]:
    stays: dict[str, list[float]] = {name: [] for name in kinds(many)}
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as group:
        for name, kind in kinds(many).items():
            for _ in range(kind.count):
                group.create_task(hold_on(port, kind, until, stays[name]))
    return stays


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, many, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(crowd(int(port), int(many), float(seconds)))))
