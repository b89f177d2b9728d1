"""Sixteen clients while versions are swapped, models come and go, and a broken one is published."""

import shutil
import threading

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf import text_format

from sluice.wire.protos import serving_pb2_grpc
from sluice.wire.protos.serving_pb2 import (
    GetModelStatusRequest,
    ModelConfig,
    ModelServerConfig,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
    ReloadConfigRequest,
)
from sluice.wire.tensors import encode_tensor

pytestmark = pytest.mark.slow

CLIENTS, SWAPS, LOOKS = 16, 50, 5
State = ModelVersionStatus.State


class Site:
    """A config file and the directories of the models it may name; `heavy` is the one swapped."""

    def __init__(self, directory, conformance_models, own_models):
        self.file, self._own = directory / "models.config", own_models
        self._bases = {name: conformance_models / name for name in ("affine", "pair", "echo")}
        self._bases["heavy"] = directory / "heavy"
        self.publish(1)

    def publish(self, version):
        beside = self._bases["heavy"] / "copy.tmp"
        shutil.copytree(self._own / "heavy" / "1", beside)
        beside.rename(self._bases["heavy"] / str(version))

    def publish_broken(self, version):
        (self._bases["heavy"] / str(version)).mkdir()

    def retire(self, version):
        shutil.rmtree(self._bases["heavy"] / str(version))

    def config(self, *names):
        return ModelServerConfig(
            model_config_list={
                "config": [
                    ModelConfig(name=name, base_path=str(self._bases[name])) for name in names
                ]
            }
        )

    def write(self, *names):
        beside = self.file.with_suffix(".new")
        beside.write_text(text_format.MessageToString(self.config(*names)))
        beside.rename(self.file)


class Load:
    """Calls `affine` and `heavy` from all the clients inside the block."""

    def __init__(self, address):
        self.answered, self.failures, self._stop = 0, [], threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(address, number)) for number in range(CLIENTS)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, address, number):
        request = PredictRequest(model_spec=ModelSpec(name=("affine", "heavy")[number % 2]))
        request.inputs["x"].CopyFrom(encode_tensor(np.ones(4, "f4")))
        with grpc.insecure_channel(address, [("lane", number)]) as channel:
            stub = serving_pb2_grpc.PredictionServiceStub(channel)
            while not self._stop.is_set():
                try:
                    stub.Predict(request, timeout=60)
                    self.answered += 1
                except grpc.RpcError as error:
                    self.failures.append(error)


@pytest.mark.parametrize("flags", [(), ("--enable_batching",)], ids=["direct", "batching"])
def test_models_that_stay_are_served_through_every_change(
    launch_modelserver, tmp_path, conformance_models, own_models, until, flags
):
    site = Site(tmp_path, conformance_models, own_models)
    site.write("affine", "heavy")
    server = launch_modelserver(
        f"--model_config_file={site.file}",
        "--model_config_file_poll_wait_seconds=0.1",
        "--file_system_poll_wait_seconds=0.1",
        *flags,
    )
    process = psutil.Process(server.process.pid)
    with grpc.insecure_channel(server.address) as channel:
        models = serving_pb2_grpc.ModelServiceStub(channel)

        def states(name):
            try:
                reply = models.GetModelStatus(
                    GetModelStatusRequest(model_spec=ModelSpec(name=name)), timeout=60
                )
            except grpc.RpcError:
                return {}
            return {status.version: status.state for status in reply.model_version_status}

        def swap_to(version):
            """The memory after it."""
            site.publish(version)
            until(lambda: states("heavy").get(version - 1) == State.END)
            site.retire(version - 1)
            return process.memory_info().rss

        with Load(server.address) as load:
            settled = [swap_to(version) for version in range(2, 12)]  # allocators do
            then = [swap_to(version) for version in range(12, 12 + SWAPS)]
            # What calls need for a moment is no growth: the lowest of some looks each.
            growth = min(then[-LOOKS:]) / min(settled[-LOOKS:]) - 1
            change_models(site, models, states, until)
            site.publish_broken(999)
            until(lambda: states("heavy").get(999) == State.END)
    assert not load.failures
    assert load.answered > SWAPS
    assert growth < 0.1, f"{growth:.1%} more memory after {SWAPS} swaps"
    print(f"{load.answered} calls answered, {growth:+.1%} memory after {SWAPS} swaps")
    assert server.terminate() == 0


def change_models(site, models, states, until):
    """Add and remove a model by the config file, then by request."""
    site.write("affine", "heavy", "pair")
    until(lambda: State.AVAILABLE in states("pair").values())
    site.write("affine", "heavy")
    until(lambda: set(states("pair").values()) == {State.END})
    site.write("affine", "heavy", "echo")  # what the request says, or the poll would undo it
    models.HandleReloadConfigRequest(
        ReloadConfigRequest(config=site.config("affine", "heavy", "echo")), timeout=60
    )
    assert State.AVAILABLE in states("echo").values()
    site.write("affine", "heavy")
    models.HandleReloadConfigRequest(
        ReloadConfigRequest(config=site.config("affine", "heavy")), timeout=60
    )
    until(lambda: set(states("echo").values()) == {State.END})
