"""`kill -9` in each stage of a rollout: of a whole gateway, of the model server, of the command.
Where it stands, who answers and what was seen of it is right afterwards.
"""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import requests

from service.rollout import state
from service.rollout.evidence import evidence_directory, evidence_in, read_evidence
from sluice.wire.model_config import write_config
from sluice.wire.rollout_files import read_rollout, remove_rollout
from sluice.wire.rollouts import Rollout, Stage
from tests.gateway.rollouts import eventually
from tests.processes import RUNNING, GatewayProcess, ModelServerProcess, free_port

pytestmark = pytest.mark.slow

# The command looks, and finds that more is to be seen.
GUARD = """
pairs = 1000000
patience = 1000000
[allowed]
slower = 1
[times]
slow = 1e6
"""
PREDICT = "/v1/models/toy:predict"
MOVES: dict[Stage, Callable[[Path], Rollout]] = {
    Stage.SHADOW: state.shadow,
    Stage.CANARY: lambda model: state.canary(model, 0.5),
    Stage.PROMOTED: state.promote,
}


class Outcome(NamedTuple):
    """Of one request to `url`: the status, 0 where nobody answered, and which version did."""

    url: str
    status: int
    version: str = ""


class Asking(threading.Thread):
    """Asks one gateway, one request after the other, until it is told that it is over."""

    def __init__(self, url: Callable[[], str]) -> None:
        super().__init__()
        self._url, self._over = url, threading.Event()
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        while not self._over.wait(0.01):
            self.outcomes.append(ask(f"{self._url()}{PREDICT}"))

    def end(self) -> None:
        self._over.set()
        self.join()

    def lost(self) -> set[int]:
        return {each.status for each in self.outcomes} - {200}

    def versions(self) -> set[str]:
        return {each.version for each in self.outcomes if each.status == 200}

    def answered_by(self, gateway: GatewayProcess) -> int:
        asked = f"{gateway.url}{PREDICT}"
        return sum(each.status == 200 and each.url == asked for each in self.outcomes)

    def is_answered_again(self) -> bool:
        """Once it is called: whether the next request is."""
        before = len(self.outcomes)
        eventually(lambda: len(self.outcomes) > before + 1)
        return self.outcomes[-1].status == 200


def told(gateway: GatewayProcess) -> str:
    """Its metrics."""
    return requests.get(f"{gateway.url}/metrics", timeout=60).text


def ask(url: str) -> Outcome:
    try:
        reply = requests.post(url, json={"instances": [1.0]}, timeout=60)
    except requests.ConnectionError:
        return Outcome(url, 0)
    return Outcome(url, reply.status_code, reply.headers.get("X-Sluice-Version", ""))


class Stack:
    """Two gateways that follow the rollout of `toy`, before one twin that serves its versions by
    the list that `sluice up` would write; and the command."""

    def __init__(self, repository: Path) -> None:
        self.repository, self.model = repository, repository / "toy"
        self._list, self._guard = repository / ".models.config", repository / ".guard.toml"
        self._guard.write_text(GUARD)
        self._port = free_port()
        self.gateways: list[Gateway] = []
        self.bring_to(Stage.SHADOW)
        self.twin = self._start_twin()
        self.gateways = [self._start_gateway() for _ in range(2)]
        self.twin.wait_for(RUNNING.pattern)
        for gateway in self.gateways:
            gateway.wait_for(gateway.up)
        self.command: subprocess.Popen[str] | None = None

    @property
    def rollout(self) -> Rollout:
        found = read_rollout(self.model)
        assert found is not None
        return found

    def bring_to(self, stage: Stage) -> None:
        """A fresh rollout, which nobody takes for the one before, and what is listed for the model
        server."""
        remove_rollout(self.model)
        eventually(lambda: not any("\nsluice_rollout{" in told(each) for each in self.gateways))
        state.start(self.model, 2)
        MOVES[stage](self.model)
        write_config(self._list, self.repository, ["toy"])

    def follows(self, gateway: GatewayProcess) -> bool:
        now = self.rollout
        share = 1.0 if now.answering == now.next else now.canary
        series = f'sluice_rollout{{live="1",model="toy",next="2",stage="{now.stage}"}} {share}\n'
        return series in told(gateway)

    def seen_by(self, gateway: GatewayProcess) -> int:
        """Answers that the gateway has written down, whether it lives or not."""
        folder = evidence_directory(self.model, self.rollout.id)
        found = [evidence_in(path) for path in folder.glob(f"*-{gateway.worker}-*.json")]
        sides = [side for each in found for side in (each.stable, each.canary)]
        return sum(side.requests - side.errors for side in sides)

    @contextmanager
    def asked(self) -> Iterator[list[Asking]]:
        """Each gateway, or the one that was begun in its place."""
        asking = [Asking(lambda place=place: self.gateways[place].url) for place in (0, 1)]
        for each in asking:
            each.start()
        try:
            eventually(lambda: all(len(each.outcomes) > 5 for each in asking))
            yield asking
        finally:
            for each in asking:
                each.end()

    def kill_gateway(self) -> None:
        """The first one, all of its processes, and begin another."""
        eventually(lambda: self.seen_by(self.gateways[0]) or self.rollout.stage is Stage.PROMOTED)
        master = psutil.Process(self.gateways[0].process.pid)
        for each in (master, *master.children(recursive=True)):
            each.kill()
        self.gateways[0].wait()
        self.gateways[0] = self._start_gateway()
        self.gateways[0].wait_for(GatewayProcess.up)

    def kill_twin(self) -> None:
        self.twin.process.kill()
        self.twin.wait()
        self.twin = self._start_twin()
        self.twin.wait_for(RUNNING.pattern)

    def kill_command(self) -> None:
        """Where it has ended by itself the same is asked once more."""
        self.end_command()
        self.start_command()

    def start_command(self) -> None:
        words = ["rollout", "toy", "2", f"--guard={self._guard}"]
        command = [sys.executable, "-P", "-m", "service.cli", *words]
        command.append(f"--model-repository={self.repository}")
        self.command = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.command.stdout is not None
        assert self.rollout.stage in self.command.stdout.readline()

    def end_command(self) -> None:
        assert self.command is not None
        self.command.kill()
        self.command.communicate()

    def end(self) -> None:
        for each in (*self.gateways, self.twin):
            each.terminate()

    def _start_twin(self) -> ModelServerProcess:
        return ModelServerProcess(
            f"--port={self._port}",
            f"--model_config_file={self._list}",
            "--model_config_file_poll_wait_seconds=1",
            "--allow_version_labels_for_unavailable_models=true",
        )

    def _start_gateway(self) -> "Gateway":
        return Gateway(
            f"127.0.0.1:{self._port}",
            workers=1,
            admin_port=0,
            models="toy",
            public_metrics="on",
            model_repository=self.repository,
        )


class Gateway(GatewayProcess):
    """`worker`: the process that answers, once it does."""

    def __init__(self, model_server: str, **settings: object) -> None:
        super().__init__(model_server, **settings)
        self.worker = 0

    def wait_for(self, text: str, timeout_s: float = 300) -> None:
        super().wait_for(text, timeout_s)
        [worker] = psutil.Process(self.process.pid).children()
        self.worker = worker.pid


@pytest.fixture(scope="module")
def stack(conformance_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    repository = tmp_path_factory.mktemp("kills")
    for number in "12":
        shutil.copytree(conformance_models / "affine/1", repository / "toy" / number)
    stack = Stack(repository)
    yield stack
    stack.end()


@pytest.fixture(scope="module", params=MOVES)
def stage(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Stage]:
    """Each in turn: the gateways follow it, and so does the command."""
    stack.bring_to(request.param)
    stack.start_command()
    eventually(lambda: all(map(stack.follows, stack.gateways)))
    yield request.param
    stack.end_command()


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize(
    ("kill", "lost"),
    [
        pytest.param(Stack.kill_command, [set(), set()], id="the command"),
        pytest.param(Stack.kill_gateway, [{0}, set()], id="a gateway"),
        pytest.param(Stack.kill_twin, [{503}, {503}], id="the model server"),
    ],
)
def test_whoever_is_killed_the_rollout_stands_and_the_evidence_adds_up(
    stack: Stack, kill: Callable[[Stack], None], lost: list[set[int]]
) -> None:
    before, gateways = stack.rollout, [*stack.gateways]
    seen = [stack.seen_by(each) for each in gateways]
    with stack.asked() as asking:
        kill(stack)
        eventually(lambda: all(each.is_answered_again() for each in asking))
        pairs = read_evidence(stack.model, before.id).pairs
        eventually(lambda: not before.shadow or read_evidence(stack.model, before.id).pairs > pairs)
    assert stack.rollout == before
    assert all(each.lost() <= may for each, may in zip(asking, lost, strict=True))
    answering = before.loaded if before.canary else {before.answering}
    assert all(each.versions() == {*map(str, answering)} for each in asking)
    if before.stage is not Stage.PROMOTED:  # then nothing is on trial, and nothing is counted
        seen_is_right(stack, gateways, asking, seen, is_exact=kill is not Stack.kill_twin)
    for label, version in before.labels.items():
        url = f"{stack.gateways[0].url}/v1/models/toy/labels/{label}:predict"
        eventually(lambda: ask(url) == Outcome(url, 200, str(version)))  # noqa: B023


def seen_is_right(
    stack: Stack, gateways: list[Gateway], asking: list[Asking], before: list[int], is_exact: bool
) -> None:
    """What each gateway has answered is counted, once; where it is not `is_exact`, but for those
    whose version failed, as its server had died of something, and for which the other stood in."""
    now = read_evidence(stack.model, stack.rollout.id)
    errors = now.stable.errors + now.canary.errors
    assert errors == 0 or not is_exact
    for was, gateway, already, each in zip(gateways, stack.gateways, before, asking, strict=True):
        answered = each.answered_by(gateway)
        if was is not gateway:  # what the killed one had written stays, and this one has its own
            assert 0 < stack.seen_by(was) <= already + each.answered_by(was)
            already = 0
        right = range(answered - errors, answered + 1)
        eventually(lambda: stack.seen_by(gateway) - already in right)  # noqa: B023
