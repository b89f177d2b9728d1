"""A share of what the machine can, for long, while all that may change does: the model's version,
the file of keys, the server's certificate and the authority of the clients'; and all is captured.
Nobody gets a wrong answer, and nothing grows.

    make test-load PYTEST_ADDOPTS=--soak-minutes=5
"""

import asyncio
import contextlib
import http.client
import re
import shutil
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import psutil
import pytest
import trustme

from service.captures import Captures
from service.gateway.access.keys import digest_of, new_key
from service.gateway.settings import Settings
from service.gateway.version_series import MOST_VERSIONS, QUIET_S
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import encode_tensor
from tests.processes import free_port
from tests.system.load import (
    Outcome,
    Question,
    closed_loop,
    failed,
    open_loop,
    strangers,
    told,
)

PATIENCE_S = 120
PATH, BODY, RIGHT = "/v1/models/affine:predict", b'{"instances":[10.0]}', b'{"predictions":[7.0]}'
CAPTURES = 2_000_000  # bytes, so that files of them come and go
CLIENT = "client@example.org"
IN_A_ROW = 20  # answers: of two workers each has given one, but for one time in 500,000
# A worker's own of one version: a file of counters and one of histograms (version_series.py).
LATELY_S = 10.0
VERSIONS_METRICS, FILES_EACH = re.compile(r"_\d+_\d+\.db$"), 2
GOOD, WRONG = new_key("good"), new_key("good")


class Shape(NamedTuple):
    """How hard, for how long beside the time to settle, and what may have grown."""

    share: float  # of what 8 clients get that ask as fast as they can
    seconds: float
    settle_s: float
    memory: float  # after and before
    descriptors: int
    max_wait_s: float  # beside others who may stand still, no reason to refuse anybody


SHORT = Shape(0.1, 5, 0, 1.5, 40, PATIENCE_S)


class Held(NamedTuple):
    """By the workers, and by the twin: bytes, and descriptors. Those of versions' metrics, which
    come and go with the versions, are `files` of the worker that has the most."""

    memory: int
    descriptors: int
    files: int
    twin_memory: int
    twin_descriptors: int


@pytest.fixture(
    params=[
        pytest.param(False, marks=pytest.mark.slow, id="short"),
        pytest.param(True, marks=pytest.mark.load, id="long"),
    ]
)
def shape(request):
    if not request.param:
        return SHORT
    seconds = 60 * request.config.getoption("--soak-minutes")
    settle_s = min(QUIET_S + LATELY_S, seconds / 4)  # versions' metrics: as many come as go then
    return Shape(0.5, seconds, settle_s, 1.1, 16, Settings().max_wait_s)


class House:
    """A gateway before the twin, and what there is to change about both. `leaf` is the certificate
    that clients show."""

    def __init__(self, directory: Path, folder, model: Path) -> None:
        self._folder, self._model = folder, model
        self.access, self.captures = directory / "access.toml", directory / "captures"
        self.repository = directory / "repository"
        self.version, self.rounds, self.changed = 1, 0, Counter()
        self.swapped = [time.monotonic()]
        self._authority = folder.authority
        self._keys = [new_key("round-0")]
        self._publish(1)
        self._write_keys()
        folder.replace("clients.pem", self._authority.cert_pem.bytes())
        self._trust(self._authority)

    def settings(self) -> dict[str, object]:
        return self._folder.settings(self._folder["clients.pem"]) | {
            "access_file": self.access,
            "capture_dir": self.captures,
            "capture_share": 1,
            "capture_max_bytes": CAPTURES,
            "grpc_port": free_port(),
            "models": "affine",
            "access_log": "off",
        }

    def go_on(self, gateway, seconds: float) -> None:
        """Change one after another, all of it once at the least."""
        until = time.monotonic() + seconds
        while True:
            for change in (self.keys, self.certificate, self.authority, self.swap):
                change(gateway)
                self.changed[change.__name__] += 1
            if time.monotonic() > until:
                return

    def keys(self, gateway) -> None:
        self.rounds += 1
        self._keys.append(new_key(f"round-{self.rounds}"))
        self._write_keys()
        before, new = self._keys[-2:]
        wait_until(lambda: self._is_always(gateway, new, 200))
        wait_until(lambda: self._is_always(gateway, before, 401))
        assert self.status(gateway, GOOD) == 200
        assert self.status(gateway, WRONG) == 401

    def certificate(self, gateway) -> None:
        before = self._serial(gateway)
        self._folder.renew()
        wait_until(lambda: self._serial(gateway) != before)

    def authority(self, gateway) -> None:
        """The new one is trusted beside the old one, clients change over, the old one goes."""
        old, old_tls, new = self._authority, self.tls, trustme.CA()
        both = old.cert_pem.bytes() + new.cert_pem.bytes()
        self._folder.replace("clients.pem", both)
        shown = self._folder.client_context(new.issue_cert(CLIENT))
        wait_until(lambda: self._is_always(gateway, GOOD, 200, shown))
        self._trust(new)
        time.sleep(1)  # for handshakes that began before; and for a gateway that stands still
        wait_until(lambda: self._is_always(gateway, GOOD, 200))
        self._folder.replace("clients.pem", new.cert_pem.bytes())
        wait_until(lambda: self._is_always(gateway, GOOD, 0, old_tls))

    def swap(self, gateway) -> None:
        self.version += 1
        self._publish(self.version)
        wait_until(lambda: self._answering(gateway) == str(self.version))
        self.swapped.append(time.monotonic())
        shutil.rmtree(self.repository / "affine" / str(self.version - 1))

    def most_files(self) -> int:
        """That a worker may have for versions' metrics: a version's are kept while it has answered
        lately, which those in flight and the next count let last a little longer."""
        since = time.monotonic() - QUIET_S - LATELY_S
        lately = sum(when > since for when in self.swapped) + 1  # the one before them was live then
        return FILES_EACH * max(lately, MOST_VERSIONS)

    def _publish(self, version: int) -> None:
        beside = self.repository / "affine" / "next.tmp"
        shutil.copytree(self._model, beside)
        beside.rename(beside.with_name(str(version)))

    def _write_keys(self) -> None:
        entries = [
            f'[keys.{name}]\nsha256 = "{digest_of(key)}"\nmodels = ["affine"]\n'
            for name, key in (("good", GOOD), (f"round-{self.rounds}", self._keys[-1]))
        ]
        beside = self.access.with_suffix(".new")
        beside.write_text("".join(entries))
        beside.replace(self.access)

    def _trust(self, authority: trustme.CA) -> None:
        self._authority, self.leaf = authority, authority.issue_cert(CLIENT)
        self.tls = self._folder.client_context(self.leaf)

    def _serial(self, gateway) -> str:
        connection = http.client.HTTPSConnection("localhost", gateway.http_port, context=self.tls)
        with contextlib.closing(connection):
            connection.connect()
            return connection.sock.getpeercert()["serialNumber"]

    def _ask(self, gateway, key: str, tls=None) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(
            "localhost", gateway.http_port, timeout=PATIENCE_S, context=tls or self.tls
        )
        with contextlib.closing(connection):
            headers = {"X-API-Key": key, "X-Sluice-Timing": "on"}
            connection.request("POST", PATH, BODY, headers)
            reply = connection.getresponse()
            reply.read()
            return reply

    def status(self, gateway, key: str, tls=None) -> int:
        """0 where the handshake is refused."""
        try:
            return self._ask(gateway, key, tls).status
        except OSError:
            return 0

    def _is_always(self, gateway, key: str, status: int, tls=None) -> bool:
        return all(self.status(gateway, key, tls) == status for _ in range(IN_A_ROW))

    def _answering(self, gateway) -> str:
        return self._ask(gateway, GOOD).headers["X-Sluice-Version"]


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def calls(house: House, folder, port: int) -> Iterator[list[str]]:
    """Over gRPC from a thread, each on a channel of its own; what became of each, "" where all was
    right."""
    found, stop = [], threading.Event()
    request = PredictRequest()
    request.model_spec.name = "affine"
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([10])))

    def ask():
        while not stop.wait(0.2):
            leaf, ca = house.leaf, Path(folder["ca.pem"]).read_bytes()
            credentials = grpc.ssl_channel_credentials(
                ca, leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
            )
            with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
                try:
                    PredictionServiceStub(channel).Predict(
                        request, timeout=PATIENCE_S, metadata=[("x-api-key", GOOD)]
                    )
                    found.append("")
                except grpc.RpcError as error:
                    found.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def held(gateway, twin: psutil.Process) -> Held:
    memory = descriptors = files = 0
    for worker in psutil.Process(gateway.process.pid).children():
        paths = [each.path for each in worker.open_files() if VERSIONS_METRICS.search(each.path)]
        memory += worker.memory_info().rss
        descriptors += worker.num_fds() - len(paths)
        files = max(files, len(set(paths)))
    return Held(memory, descriptors, files, twin.memory_info().rss, twin.num_fds())


def test_everything_changes_and_nobody_gets_a_wrong_answer(
    launch_modelserver, launch_front, conformance_models, folder, tmp_path, shape
):
    house = House(tmp_path, folder, conformance_models / "affine" / "1")
    twin = launch_modelserver(
        f"--model_repository={house.repository}", "--file_system_poll_wait_seconds=0.2"
    )
    settings = house.settings() | {"max_wait_s": shape.max_wait_s}
    gateway = launch_front(twin.address, **settings)
    wait_until(lambda: house.status(gateway, GOOD) == 200)
    with calls(house, folder, settings["grpc_port"]) as called:
        asyncio.run(_soak(house, gateway, psutil.Process(twin.process.pid), shape))
    assert called and set(called) == {""}
    print(f"{len(called)} calls over gRPC")
    _check_captures(house.captures)
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics") as reply:
        metrics = reply.read().decode()
    for name in ("access_problem", "tls_problem"):
        assert f"\nsluice_{name} 0.0\n" in metrics
    assert 'sluice_captures_total{outcome="disk"}' not in metrics


async def _soak(house: House, gateway, twin: psutil.Process, shape: Shape) -> None:
    question = Question(
        gateway.http_port, PATH, BODY, RIGHT, f"X-API-Key: {GOOD}\r\n", lambda: house.tls
    )
    peak = await closed_loop(question, 8, 3)
    assert not failed(peak), told(failed(peak))
    rate = shape.share * len(peak) / 3
    samples = []
    for seconds in (shape.settle_s, shape.seconds):
        stop = asyncio.Event()
        asked = asyncio.gather(_ask(question, rate, stop), strangers(question, stop, 0.1))
        try:
            await asyncio.to_thread(house.go_on, gateway, seconds)
        finally:
            stop.set()
            wrong, outcomes = await asked
        print(f"{told(outcomes)}, each on a connection of its own")
        assert not wrong and not failed(outcomes), [*wrong, *failed(outcomes)][:3]
        samples.append(held(gateway, twin))
        assert samples[-1].files <= house.most_files()
    print(f"changes {dict(house.changed)}; {samples}")
    for before, after in pairwise(samples):
        assert after.memory < shape.memory * before.memory
        assert after.twin_memory < shape.memory * before.twin_memory
        assert after.descriptors < before.descriptors + shape.descriptors
        assert after.twin_descriptors < before.twin_descriptors + shape.descriptors


async def _ask(question: Question, rate: float, stop: asyncio.Event) -> list[Outcome]:
    """What is not answered rightly of a load until `stop`, a minute after the other: of half an
    hour's requests Python would look for garbage for seconds, and the load come in bursts."""
    wrong, seed = [], 0
    while not stop.is_set():
        seed += 1
        outcomes = await open_loop(question, rate, 60, seed, stop)
        print(f"{told(outcomes)}, at {rate:.0f} a second", flush=True)
        wrong += failed(outcomes)
    return wrong


def _check_captures(directory: Path) -> None:
    assert sum(path.stat().st_size for path in directory.iterdir()) <= CAPTURES
    logged = [each.logged for each in Captures(directory)]
    assert logged and {each.model.name for each in logged} == {"affine"}
