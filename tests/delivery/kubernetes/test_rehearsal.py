"""A rollout of everything, rehearsed by processes with the manifests' own flags, settings and
probes, while clients ask over HTTP and gRPC: nobody is to notice."""

import asyncio
import contextlib
import json
import os
import urllib.request
from collections import Counter

import grpc
import numpy as np
import pytest

from service.gateway.settings import Settings
from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import encode_tensor
from tests.delivery.kubernetes.cluster import Cluster, Service, meanwhile
from tests.system.load import Client, Question

pytestmark = [pytest.mark.slow, pytest.mark.clients, pytest.mark.root]

CLIENTS = 4  # of each kind
PAUSE_S = 0.05
IMAGE = np.zeros((1, 8, 8, 1), np.float32)
METRICS = "http://{}:8501/monitoring/prometheus/metrics"


@pytest.fixture
def cluster(cpu, published, tmp_path):
    if os.getuid() != 0:
        pytest.skip("mounts are root's")
    cluster = Cluster(cpu, published.parent, tmp_path)
    yield cluster
    cluster.kill()


class Load:
    """Clients that ask on and on; `answered` counts by dialect, `failed` says why."""

    def __init__(self, http_port, grpc_port):
        self.answered = {"http": 0, "grpc": 0}
        self.failed = []
        self._over = asyncio.Event()
        body = json.dumps({"instances": IMAGE.tolist()}).encode()
        self._question = Question(http_port, "/v1/models/digits:predict", body)
        self._grpc_port = grpc_port

    async def ask_over_http(self):
        """On a connection each: one that is kept may be closed just as the next request leaves."""
        while not self._over.is_set():
            client = Client(self._question)
            outcome = await client.ask()
            client.close()
            self._count("http", outcome.right, f"{outcome.status} {outcome.why}")
            await asyncio.sleep(PAUSE_S)

    async def ask_over_grpc(self):
        request = PredictRequest(model_spec=ModelSpec(name="digits"))
        request.inputs["image"].CopyFrom(encode_tensor(IMAGE))
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each client
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._grpc_port}", own) as channel:
            while not self._over.is_set():
                why = ""
                try:
                    await PredictionServiceStub(channel).Predict(request, timeout=60)
                except grpc.aio.AioRpcError as error:
                    why = f"{error.code().name} {error.details()}"
                self._count("grpc", not why, why)
                await asyncio.sleep(PAUSE_S)

    @contextlib.asynccontextmanager
    async def going_on(self):
        """All clients ask until the block ends, and then have their last answers."""
        asking = [
            deed() for deed in (self.ask_over_http, self.ask_over_grpc) for _ in range(CLIENTS)
        ]
        async with asyncio.TaskGroup() as clients:
            for each in asking:
                clients.create_task(each)
            try:
                yield
            finally:
                self._over.set()

    def _count(self, dialect, right, why):
        if right:
            self.answered[dialect] += 1
        else:
            self.failed.append(f"{dialect}: {why}")


@contextlib.asynccontextmanager
async def asked(cluster, settings):
    """A Load on the gateways' Service, while the block lasts."""
    ports = (settings.http_port, settings.grpc_port)
    services = [Service(lambda: cluster.endpoints("gateway"), port) for port in ports]
    load = Load(*[await each.open() for each in services])
    async with load.going_on():
        yield load
    for each in services:
        each.close()


async def until(condition):
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


def is_called(pod):
    """Whether this model server has answered anybody."""
    with urllib.request.urlopen(METRICS.format(pod.address), timeout=30) as reply:
        return b'request_count{model_name="digits",status="OK"}' in reply.read()


async def rehearse(cluster, settings):
    async with meanwhile(cluster.keep_names):
        await asyncio.gather(cluster.scale("modelserver", 2), cluster.scale("gateway", 3))
        async with asked(cluster, settings) as load:
            # At once, as where one `kubectl apply` changes both.
            await asyncio.gather(cluster.roll("gateway"), cluster.roll("modelserver"))
            await cluster.scale("modelserver", 4)
            four = cluster.running("modelserver")
            await until(lambda: all(map(is_called, four)))
            await cluster.scale("modelserver", 2)
            before = dict(load.answered)
            await until(lambda: all(load.answered[each] > before[each] + 20 for each in before))
    return load


def test_a_rollout_of_everything_fails_nobody(cluster, cpu):
    settings = Settings.from_environment(cpu.environment(cpu.pod("gateway").container("gateway")))
    load = asyncio.run(rehearse(cluster, settings))
    print(f"answered: {load.answered}; failed: {len(load.failed)}; pods: {len(cluster.pods)}")
    assert not Counter(load.failed)
    assert all(count > 100 for count in load.answered.values())
    assert not [each.name for each in cluster.pods if each.restarts_due]
