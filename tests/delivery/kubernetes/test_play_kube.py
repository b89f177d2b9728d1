"""The laptop overlay's pods really run, by podman: a prediction, and a gateway replaced under load.

podman runs the pods as the manifests describe them. What a cluster would do besides is played by
the test: `Service` below is the Service (who is ready gets connections, in turn), and `replace`
does what a rollout does, in its order: start, wait until ready, take out of the endpoints, preStop,
SIGTERM.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.processes import free_port

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
# A tenth of the manifest's: the Service here forgets an endpoint at once, not within ten seconds.
PRE_STOP_S = 1.5
FAILURES = 3  # in a row, after which a kubelet's readiness probe has failed
IMAGE = {"Content-Type": "image/png"}


class Service:
    """Takes connections at `port` and passes each on to one of the ready endpoints, in turn.

    As kube-proxy it knows connections, not requests, and tries no other endpoint when one fails.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, int] = {}
        self._ready: list[str] = []
        self.served: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        asyncio.run_coroutine_threadsafe(self._probe(), self._loop)

    def add(self, name: str, port: int) -> None:
        self._endpoints[name] = port

    def remove(self, name: str) -> None:
        """What happens to a pod that is being deleted, whatever its probe says."""
        del self._endpoints[name]
        self._ready = [each for each in self._ready if each != name]

    def wait_until_ready(self, name: str, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while name not in self._ready:
            assert time.monotonic() < deadline, f"{name} is not ready"
            time.sleep(0.05)

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.1)  # for what they closed

    async def _probe(self) -> None:
        failures: dict[str, int] = {}
        while True:
            for name, port in dict(self._endpoints).items():
                answers = await asyncio.to_thread(is_ready, port)
                failures[name] = 0 if answers else failures.get(name, FAILURES) + 1
            found = [name for name, count in failures.items() if count < FAILURES]
            self._ready = [name for name in found if name in self._endpoints]
            await asyncio.sleep(0.2)

    async def _pass_on(self, reader, writer) -> None:
        if not self._ready:
            writer.close()
            return
        name = self._ready.pop(0)
        self._ready.append(name)
        self.served[name] = self.served.get(name, 0) + 1
        try:
            back_reader, back_writer = await asyncio.open_connection(
                "127.0.0.1", self._endpoints[name]
            )
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer))
        except OSError:
            pass
        finally:
            writer.close()
            back_writer.close()


async def copy(reader, writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def service():
    running = Service()
    yield running
    running.close()


@pytest.fixture(scope="module")
def claim(engine, published):
    """The volume of the claim `models`, with version 1 of `digits` in it."""
    engine.run("podman", "volume", "rm", "--force", "models")
    engine.run("podman", "volume", "create", "models")
    place = engine.run("podman", "volume", "inspect", "--format", "{{.Mountpoint}}", "models")
    shutil.copytree(published, Path(place.stdout.strip()) / "digits")
    yield "models"
    engine.run("podman", "volume", "rm", "--force", "models")


@pytest.fixture(scope="module")
def play(engine, images, claim, kustomize, tmp_path_factory):
    """`play(deployment, name, ports)` runs a Deployment of the laptop overlay as the pod `name`."""
    overlay = kustomize(HERE.parents[2] / "deploy/kubernetes/overlays/laptop")
    assert all(name.removeprefix("localhost/") in overlay for name in images.values())
    assert f"claimName: {claim}" in overlay
    playing, folder = {}, tmp_path_factory.mktemp("pods")

    def start(deployment: str, name: str, ports: dict[str, int]) -> None:
        made = subprocess.run(
            [
                sys.executable,
                HERE / "for_podman.py",
                deployment,
                f"--name={name}",
                *(f"--port={old}={new}" for old, new in ports.items()),
            ],
            input=overlay,
            capture_output=True,
            text=True,
            check=True,
        )
        print(made.stderr)
        playing[name] = folder / f"{name}.yaml"
        playing[name].write_text(made.stdout)
        engine.run("podman", "play", "kube", "--replace", playing[name])

    yield start
    for name, file in playing.items():
        print(engine.run("podman", "pod", "logs", "--tail=30", f"{name}-pod-0", check=False).stderr)
        engine.run("podman", "play", "kube", "--down", file, check=False)
    volumes = engine.run("podman", "volume", "ls", "--quiet").stdout.split()
    for volume in volumes:
        if volume.startswith(tuple(f"{name}-" for name in playing)):
            engine.run("podman", "volume", "rm", "--force", volume)


@pytest.fixture(scope="module")
def stack(play, service):
    """A model server and a gateway behind `service`; the ports of the two."""
    ports = {"8500": free_port(), "8501": free_port()}
    play("modelserver", "modelserver", ports)
    play("gateway", "gateway-1", gateway_ports := ports | gateway_ports_on_the_host())
    service.add("gateway-1", gateway_ports["8080"])
    service.wait_until_ready("gateway-1")
    return ports


def gateway_ports_on_the_host() -> dict[str, int]:
    return {"8080": free_port(), "8081": free_port(), "8082": free_port()}


def predict(service, image: bytes) -> str:
    """The label of an image; raises OSError for whatever is not a good answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/v1/models/digits:predict", image, IMAGE
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["predictions"][0]["label_classes"][0]


class Load:
    """Clients that ask over and over, each time on a new connection, until `stop`."""

    def __init__(self, service, image: bytes, clients: int = 4) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(service, image)) for _ in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, service, image: bytes) -> None:
        while not self._stopping.is_set():
            try:
                self.answers.append(predict(service, image))
            except (OSError, urllib.error.URLError, ValueError) as error:
                self.failures.append(repr(error))

    def wait_for(self, more: int) -> None:
        wanted, deadline = len(self.answers) + more, time.monotonic() + 120
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, self.failures
            time.sleep(0.02)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def test_the_pods_run_as_the_manifests_say(engine, stack):
    for name in ("gateway-1-pod-0-gateway", "modelserver-pod-0-modelserver"):
        (container,) = json.loads(engine.run("podman", "inspect", name).stdout)
        assert container["Config"]["User"] == "10001:10001"
        assert container["HostConfig"]["ReadonlyRootfs"]
        assert not container["EffectiveCaps"]
        assert "no-new-privileges" in container["HostConfig"]["SecurityOpt"]
        assert container["HostConfig"]["Memory"] > 0
    assert f"--port={stack['8500']}" in container["Args"]


def test_a_gateway_is_replaced_under_load_and_no_request_fails(
    engine, stack, play, service, published
):
    image = (published / "1/samples/3-0.png").read_bytes()
    answer = predict(service, image)
    load = Load(service, image)
    try:
        load.wait_for(100)
        replace(engine, play, service, stack)
        gone = dict(service.served)
        load.wait_for(100)
    finally:
        load.stop()
    assert not load.failures
    assert set(load.answers) == {answer}
    assert service.served["gateway-1"] == gone["gateway-1"] >= 100
    assert service.served["gateway-2"] >= 100


def replace(engine, play, service, ports) -> None:
    """The rollout of one gateway, as a Deployment with maxSurge 1 and maxUnavailable 0 does it."""
    new_ports = ports | gateway_ports_on_the_host()
    play("gateway", "gateway-2", new_ports)
    service.add("gateway-2", new_ports["8080"])
    service.wait_until_ready("gateway-2")
    service.remove("gateway-1")
    time.sleep(PRE_STOP_S)
    engine.run("podman", "pod", "stop", "--time=50", "gateway-1-pod-0")
    container = json.loads(engine.run("podman", "inspect", "gateway-1-pod-0-gateway").stdout)[0]
    assert container["State"]["ExitCode"] == 0  # it drained, and was not killed
