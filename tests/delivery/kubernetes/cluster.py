"""A cluster of processes: what a rendered manifest says of a Deployment's container runs here, at
an address for each pod, and is probed and ended as the kubelet would.

Other than in a cluster are time (PACE), the place of a ConfigMap's files and of the models, and the
proxy before the gateways. Model servers are found by name: a pod sees an /etc/hosts of our own, for
which it needs a mount namespace, and root.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.delivery.kubernetes.conftest import Document, Manifests
from tests.processes import START_TIMEOUT_S, leashed

# Seconds of a manifest's waiting in one of ours: a model server's preStop is still longer than the
# time between two look-ups of a gateway's.
PACE = 20
AGE = "SLUICE_GRPC_MAX_CONNECTION_AGE_S"
MODULES = {"gateway": ["service.cli", "gateway"], "modelserver": ["service.modelserver"]}
SEES_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


class Pod:
    """A process from its start to its end; `ready` is what its readiness probe said last."""

    def __init__(self, name: str, address: str, spec: Document, container: Document) -> None:
        self.name, self.address = name, address
        self.ready, self.going = False, False
        self.restarts_due = 0  # how often the kubelet would have killed it
        self._spec, self._container = spec, container
        self._ports = {each["name"]: each["containerPort"] for each in container["ports"]}

    def start(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        with log.open("w") as opened:
            self._process = subprocess.Popen(
                command, env=environment, stdout=opened, stderr=subprocess.STDOUT
            )
        self._log = log
        self._watching = asyncio.create_task(self._watch())

    async def until_ready(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not self.ready:
                assert self._process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        """No endpoint any more, preStop, SIGTERM; it must end by itself, within its grace."""
        self.ready, self.going = False, True
        self._watching.cancel()
        await asyncio.sleep(self._container["lifecycle"]["preStop"]["sleep"]["seconds"] / PACE)
        self._process.terminate()
        grace_s = self._spec["terminationGracePeriodSeconds"]
        status = await asyncio.to_thread(self._process.wait, grace_s)
        assert status == 0, self._log.read_text()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def _watch(self) -> None:
        startup, readiness, liveness = (
            self._container[f"{each}Probe"] for each in ("startup", "readiness", "liveness")
        )
        while not await self._asked(startup):
            pass
        await asyncio.gather(self._keep_ready(readiness), self._keep_alive(liveness))

    async def _keep_ready(self, probe: Document) -> None:
        async for failures in self._failures(probe):
            self.ready = not failures or (
                self.ready and failures < probe.get("failureThreshold", 3)
            )

    async def _keep_alive(self, probe: Document) -> None:
        async for failures in self._failures(probe):
            self.restarts_due += failures == probe["failureThreshold"]

    async def _failures(self, probe: Document) -> AsyncIterator[int]:
        """How often it has failed in a row, after each time."""
        failures = 0
        while True:
            failures = 0 if await self._asked(probe) else failures + 1
            yield failures

    async def _asked(self, probe: Document) -> bool:
        """Once, at the end of a period."""
        await asyncio.sleep(probe["periodSeconds"] / PACE)
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                if "grpc" in probe:
                    return await self._serves(probe["grpc"]["port"])
                where = probe["httpGet"]
                return await self._answers(
                    self._ports.get(where["port"], where["port"]), where["path"]
                )
        except (OSError, TimeoutError, grpc.aio.AioRpcError):
            return False

    async def _serves(self, port: int) -> bool:
        async with grpc.aio.insecure_channel(f"{self.address}:{port}") as channel:
            reply = await HealthStub(channel).Check(HealthCheckRequest())
        return reply.status == reply.SERVING

    async def _answers(self, port: int, path: str) -> bool:
        reader, writer = await asyncio.open_connection(self.address, port)
        with contextlib.closing(writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.address}\r\n\r\n".encode())
            status = (await reader.readline()).split()
        return len(status) > 1 and 200 <= int(status[1]) < 400


class Cluster:
    """The pods of a rendered place; `folder` is for their files and logs."""

    def __init__(self, manifests: Manifests, models: Path, folder: Path) -> None:
        self._manifests, self._models, self._folder = manifests, models, folder
        self._numbers = itertools.count(1)
        self.pods: list[Pod] = []
        self._hosts = folder / "hosts"
        self._name_servers()

    def running(self, name: str) -> list[Pod]:
        """The pods of a Deployment that are not on their way out, eldest first."""
        return [each for each in self.pods if each.name == name and not each.going]

    def endpoints(self, name: str) -> list[str]:
        return [each.address for each in self.running(name) if each.ready]

    async def add(self, name: str) -> Pod:
        """A new pod, once it is ready."""
        described = self._manifests.pod(name)
        container = described.container(name)
        number = next(self._numbers)
        pod = Pod(name, f"127.77.0.{number}", described.spec, container)
        self.pods.append(pod)
        folder = self._folder / f"{name}-{number}"
        pod.start(
            self._command(name, pod.address, container, folder),
            self._environment(name, pod.address, container, folder),
            self._folder / f"{name}-{number}.log",
        )
        await pod.until_ready()
        return pod

    async def scale(self, name: str, count: int) -> None:
        """Up: all at once. Down: the youngest go."""
        missing = count - len(self.running(name))
        await asyncio.gather(*(self.add(name) for _ in range(missing)))
        await asyncio.gather(*(pod.end() for pod in self.running(name)[count:]))

    async def roll(self, name: str) -> None:
        """As a Deployment with maxSurge 1 and maxUnavailable 0: one more, and an old one goes."""
        rolling = self._manifests.find("Deployment", name)["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
        ends = []
        for old in self.running(name):
            await self.add(name)
            ends.append(asyncio.create_task(old.end()))
        await asyncio.gather(*ends)

    async def keep_names(self) -> None:
        """The headless Service: its name is the addresses of the pods that are ready."""
        known: list[str] = []
        while True:
            if (now := self.endpoints("modelserver")) != known:
                self._name_servers()
                known = now
            await asyncio.sleep(0.1)

    def kill(self) -> None:
        for pod in self.pods:
            pod.kill()

    def _name_servers(self) -> None:
        lines = [f"{each} modelserver\n" for each in self.endpoints("modelserver")]
        given = Path("/etc/hosts").read_text()
        self._hosts.write_text(given + "".join(lines))  # in place: it is mounted

    def _command(self, name: str, address: str, container: Document, folder: Path) -> list[str]:
        flags = [self._here(each, folder) for each in container.get("args", [])]
        if name == "modelserver":
            flags.append(f"--bind_address={address}")
        return leashed(
            *("unshare", "--mount", "sh", "-c", SEES_HOSTS, str(self._hosts)),
            *(sys.executable, "-P", "-m", *MODULES[name], *flags),
        )

    def _environment(
        self, name: str, address: str, container: Document, folder: Path
    ) -> dict[str, str]:
        self._write_files(self._manifests.pod(name).spec, container, folder)
        given = self._manifests.environment(container)
        if name == "gateway":
            # One machine starts and serves what a cluster's nodes would: it may take its time.
            given |= {"SLUICE_HTTP_HOST": address, "SLUICE_MAX_WAIT_S": "20"}
            given[AGE] = str(float(given[AGE]) / PACE)  # beside preStop, which is paced too
        kept = {each: os.environ[each] for each in ("PATH", "PYTHONPATH") if each in os.environ}
        return kept | {each: self._here(value, folder) for each, value in given.items()}

    def _write_files(self, spec: Document, container: Document, folder: Path) -> None:
        maps = {each["name"]: each["configMap"] for each in spec["volumes"] if "configMap" in each}
        for mount in container["volumeMounts"]:
            if mount["name"] in maps:
                place = folder / mount["mountPath"].lstrip("/")
                place.mkdir(parents=True, exist_ok=True)
                files = self._manifests.find("ConfigMap", maps[mount["name"]]["name"])["data"]
                for name, text in files.items():
                    (place / name).write_text(text.replace("/models/", f"{self._models}/"))

    @staticmethod
    def _here(value: str, folder: Path) -> str:
        return value.replace("/etc/sluice/", f"{folder}/etc/sluice/")


class Service:
    """A port on which each new connection is given to one of `endpoints` in turn, as kube-proxy
    gives it; those that there are stay where they are."""

    def __init__(self, endpoints: Callable[[], list[str]], target_port: int) -> None:
        self._endpoints, self._target_port = endpoints, target_port
        self._turn = itertools.count()

    async def open(self) -> int:
        """The port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = self._endpoints()
        address = there[next(self._turn) % len(there)]
        ends = contextlib.suppress(OSError, asyncio.CancelledError)  # those of a side, of all
        with contextlib.closing(writer), ends:
            inner_reader, inner_writer = await asyncio.open_connection(address, self._target_port)
            with contextlib.closing(inner_writer):
                await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def meanwhile(*deeds: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Each goes on until the block ends."""
    tasks = [asyncio.ensure_future(deed()) for deed in deeds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
