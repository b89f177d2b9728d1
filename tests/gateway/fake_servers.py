"""Model servers that are well when a test says so, and are no more than their names: who chooses
among them is tried without a network."""

import asyncio

from service.gateway.servers import Servers


class FakeServer:
    def __init__(self, name):
        self.name, self.in_flight = name, 0

    def __repr__(self):
        return self.name


class FakeServers(Servers):
    """`up` are those that take calls."""

    def __init__(self, *names):
        super().__init__("")
        self.up = [FakeServer(name) for name in names or ("one",)]
        self.down = FakeServer("down")

    def well(self, _now):
        return self.up

    def any(self):
        return self.up[0] if self.up else self.down

    async def until_known(self, _):
        await asyncio.sleep(0)

    def change(self, *names):
        self.up = [FakeServer(name) for name in names]
        self._changed()
